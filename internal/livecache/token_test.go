package livecache

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTokenIsSharedBetweenOpenFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	a, err := openToken(path)
	require.NoError(t, err)
	defer a.close()
	require.Zero(t, a.read())
	require.NoError(t, a.write(7))

	b, err := openToken(path)
	require.NoError(t, err)
	defer b.close()
	require.EqualValues(t, 7, b.read(), "opening keeps what is there")
	if runtime.GOOS == "linux" {
		require.NotNil(t, b.word, "reading costs no system call")
	}

	// Where nothing can be mapped, the file is read.
	plain := &token{file: b.file}
	for v := uint64(1); v < 100; v++ {
		require.NoError(t, a.write(v<<56|v))
		require.Equal(t, v<<56|v, a.read())
		require.Equal(t, v<<56|v, b.read())
		require.Equal(t, v<<56|v, plain.read())
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, tokenSize, info.Size())
}

func TestTokenAfterCloseAndRemoval(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	a, err := openToken(path)
	require.NoError(t, err)
	require.NoError(t, a.write(7))
	require.NoError(t, os.Remove(path))
	require.EqualValues(t, 7, a.read())
	a.close()
	require.EqualValues(t, 7, a.read(), "a reader that came too late reads, and does not crash")
	require.ErrorIs(t, a.write(8), os.ErrClosed)
	require.Zero(t, (&token{file: a.file}).read())
}

func TestTokenMappingEndsWithTheToken(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc/self/maps, which only Linux has")
	}
	path := filepath.Join(t.TempDir(), "a-token-with-a-name-of-its-own")
	mapped := func() bool {
		maps, err := os.ReadFile("/proc/self/maps")
		require.NoError(t, err)
		return strings.Contains(string(maps), path)
	}
	a, err := openToken(path)
	require.NoError(t, err)
	require.True(t, mapped())
	a.close()
	require.NotZero(t, a.read()+1) // it is alive until here
	require.Eventually(t, func() bool { runtime.GC(); return !mapped() }, patience, 5*time.Millisecond)
}

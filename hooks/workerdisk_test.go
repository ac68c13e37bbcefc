package hooks

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFullDiskOfAWorkerIsTold(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var told []string
	free := int64(1 << 30)
	w := diskWatch{log: slog.New(slog.NewJSONHandler(&log, nil)), host: "w1", tell: func(trouble string) { told = append(told, trouble) },
		free: func(string) (int64, error) { return free, nil }}
	w.look()
	require.Empty(t, told)
	for _, free = range []int64{10 << 20, 0, 60 << 20} { // full, fuller, and not yet well
		w.look()
	}
	require.Len(t, told, 1)
	require.Contains(t, told[0], "The disk of w1 is nearly full: 10 MB are left for ")
	require.Contains(t, log.String(), `"level":"ERROR","msg":"the disk is nearly full"`)
	free = 200 << 20
	w.look()
	require.Equal(t, "", told[1])
	require.Contains(t, log.String(), "the disk has room again")
	free = 1 << 20
	w.look()
	require.Len(t, told, 3) // and again
}

func TestFreeBytes(t *testing.T) {
	t.Parallel()
	if n, err := freeBytes(t.TempDir()); err == nil {
		require.Positive(t, n)
	}
	_, err := freeBytes("/no/such/folder")
	require.Error(t, err)
}

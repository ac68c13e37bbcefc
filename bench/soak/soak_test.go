package main

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestKilledMidSend is the short form of `make soak`.
func TestKilledMidSend(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "groundwork")
	out, err := exec.Command("go", "build", "-o", binary, "../..").CombinedOutput()
	require.NoError(t, err, string(out))
	r, err := run(options{binary: binary, people: 400, kills: 4, mailDelay: 10 * time.Millisecond, timeout: time.Minute})
	require.NoError(t, err)
	t.Log("\n" + r.String())
	require.NoError(t, r.err())
}

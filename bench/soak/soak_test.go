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
	o := defaults()
	o.binary, o.people, o.kills, o.callbackDelay, o.timeout = binary, 300, 2, 200*time.Millisecond, 5*time.Minute
	r, err := run(o)
	require.NoError(t, err)
	t.Log("\n" + r.String())
	require.NoError(t, r.err())
}

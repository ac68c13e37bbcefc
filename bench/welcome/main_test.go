package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestKilledAfterSignUp is the short form of `make soak`.
func TestKilledAfterSignUp(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "groundwork")
	out, err := exec.Command("go", "build", "-o", binary, "../..").CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, crash(binary, 4))
}

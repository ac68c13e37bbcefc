package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pgtest"
)

// TestWorkerAndPostgresKilledMidSend is the short form of `make soak`.
func TestWorkerAndPostgresKilledMidSend(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "groundwork")
	out, err := exec.Command("go", "build", "-o", binary, "../..").CombinedOutput()
	require.NoError(t, err, string(out))
	o := defaults()
	o.binary, o.people, o.timeout = binary, 2000, 5*time.Minute
	r, err := crash(o)
	if errors.Is(err, pgtest.ErrAbsent) && os.Getenv("REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Log("\n" + r.String())
	require.NoError(t, r.err())
}

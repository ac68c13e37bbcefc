package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMatrix is the command: every collection and every route of ours answers each
// kind of caller as table.go says, and none is missing there.
func TestMatrix(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	wrong, err := run(&out)
	require.NoError(t, err)
	require.Empty(t, wrong, "%s", out.String())
}

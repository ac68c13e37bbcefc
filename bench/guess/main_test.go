package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// The whole attack with the real binary, a kill -9 in the middle, in small.
func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(options{tries: 300, addresses: 100, connections: 20}, &out), out.String())
	require.Contains(t, out.String(), "5 reached the comparison before kill -9, 0 after it; 295 were refused with 429")
	require.Contains(t, out.String(), "the owner signed in with a code from the known address")
}

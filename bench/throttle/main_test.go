package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// It runs and prints what it measured; how fast is nobody's business here.
func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	_, err := run(options{pairs: 3, round: 5 * time.Millisecond, connections: 2, list: 0.95, version: 0.9}, &out)
	require.NoError(t, err)
	require.Regexp(t, `(?m)^signed-in list +limits on +\d+\.\d{3} of plain PocketBase .* all 2xx$`, out.String())
	require.Regexp(t, `(?m)^version-check / health, guest +limits on +\d+\.\d{3} of plain PocketBase .* all 2xx$`, out.String())
}

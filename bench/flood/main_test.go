package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if floods() {
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// It runs and prints what it measured; how fast is nobody's business here.
func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	_, err := run(options{connections: 40, creates: 30, most: 3}, &out)
	require.NoError(t, err)
	require.Regexp(t, `(?m)^the flooder, 40 connections, \d+ s: [1-9]\d* passed, \d+ refused, of them 0 without Retry-After$`, out.String())
	require.Regexp(t, `(?m)^a million distinct keys: \d+ bytes of memory \(bound 67108864\)`, out.String())
}

package freeport

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Each address is given out once, over the end of a block too.
func TestAddress(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 2*blockPorts + 1 {
		address, err := Address()
		require.NoError(t, err)
		require.False(t, seen[address], address)
		seen[address] = true
	}
}

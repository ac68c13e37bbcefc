package hooks

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBannerNamesAnAddressThatOpens(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"127.0.0.1:8090": "http://127.0.0.1:8090",
		"0.0.0.0:8090":   "http://127.0.0.1:8090",
		":8090":          "http://127.0.0.1:8090",
		"[::]:8090":      "http://127.0.0.1:8090",
		"[::1]:8090":     "http://[::1]:8090",
		"0.0.0.0:443":    "https://127.0.0.1",
		"localhost:80":   "http://localhost:80",
	} {
		require.Equal(t, want, reachableAddress(addr), addr)
	}
}

package e2e

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// needNode skips a test where the stock SDK cannot run in Node; where peers are
// required it fails.
func needNode(t *testing.T) {
	t.Helper()
	missing := ""
	if _, err := exec.LookPath("node"); err != nil {
		missing = "node is not installed"
	} else if _, err := os.Stat("../web/node_modules/pocketbase"); err != nil {
		missing = "the JavaScript SDK is not there: run make sdk"
	}
	if missing != "" {
		require.Empty(t, os.Getenv("REQUIRE_PEERS"), missing)
		t.Skip(missing)
	}
}

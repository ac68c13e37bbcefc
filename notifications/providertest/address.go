package providertest

import "github.com/groundworkhq/groundwork/internal/freeport"

// FreeAddress is a loopback address on which nobody listens. No other caller gets it as
// long as this process lives, and its port is none of those that the system hands out by
// itself, to whoever listens on any port or connects: it stays free until its owner is
// there, or is back.
func FreeAddress() (string, error) { return freeport.Address() }

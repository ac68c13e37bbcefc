package providertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddress is a loopback address on which nobody listens. Its port is none of
// those that the system hands out by itself, to whoever listens on any port or
// connects: it stays free until its owner is there, or is back.
func FreeAddress() (string, error) {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", errors.New("no free port was found between 10000 and 30000")
}

// Package freeport gives tests and benchmarks addresses on loopback that stay free until
// their owner is there, or is back after a restart.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// addresses are what Address gives out. Tests of several packages run beside each
// other: each process takes blocks of ports that no other one uses, and marks each as
// taken by listening on a port of its own, which the system ends with the process.
var addresses struct {
	mu    sync.Mutex
	ports []int
	marks []net.Listener
}

// Ports from 10000 to 29999 in blocks, and from 30000 the marks; what the system hands
// out by itself begins at 32768.
const (
	firstPort  = 10_000
	firstMark  = 30_000
	blockPorts = 100
	blocks     = 200
)

// Address is a loopback address on which nobody listens. No other caller gets it as
// long as this process lives, and its port is none of those that the system hands out by
// itself, to whoever listens on any port or connects: it stays free until its owner is
// there, or is back.
func Address() (string, error) {
	addresses.mu.Lock()
	defer addresses.mu.Unlock()
	for {
		if len(addresses.ports) == 0 {
			if err := takeBlock(); err != nil {
				return "", err
			}
		}
		port := addresses.ports[0]
		addresses.ports = addresses.ports[1:]
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return l.Addr().String(), l.Close()
		}
	}
}

// takeBlock adds a block of ports that no other process has. The caller holds mu.
func takeBlock() error {
	for _, block := range rand.Perm(blocks) {
		mark, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstMark+block))
		if err != nil {
			continue
		}
		addresses.marks = append(addresses.marks, mark)
		for i := range blockPorts {
			addresses.ports = append(addresses.ports, firstPort+block*blockPorts+i)
		}
		return nil
	}
	return errors.New("no free port was found between 10000 and 30000: other processes have all of them")
}

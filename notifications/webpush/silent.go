package webpush

import (
	"sync"
	"time"
)

// restAfterSilence is how long a server that did not answer is left alone, unless
// it is one of those that are believed. Somebody who is signed in may name one for
// each of their devices, and each would hold up everybody's messages.
const restAfterSilence = 5 * time.Minute

// maxSilent bounds what is kept of them.
const maxSilent = 1000

// silentServers are the servers that took a message and did not answer. It is safe
// for concurrent use.
type silentServers struct {
	mu    sync.Mutex
	until map[string]time.Time // by host:port
}

// rest is how long a server is still left alone.
func (s *silentServers) rest(host string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until[host].Sub(now)
}

func (s *silentServers) add(host string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil || len(s.until) >= maxSilent {
		s.until = map[string]time.Time{} // whoever is silent still is found out again
	}
	s.until[host] = now.Add(restAfterSilence)
}

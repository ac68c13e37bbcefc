package accounts

// SetMax sets how many sessions are remembered.
func (s *Sessions) SetMax(n int) { s.max = n }

// Remembered is how many sessions and unwritten signs of life are in memory.
func (s *Sessions) Remembered() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.young) + len(s.old) + len(s.spilled)
}

// RememberLate does what Check does when something has ended since it read h.
func (s *Sessions) RememberLate(h Holder) { s.remember(h.Key(), h, s.at, s.round+1) }

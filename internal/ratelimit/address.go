package ratelimit

import "net/netip"

// Network is what counts as one address: an IPv4 address, which may come in
// IPv6's clothes, or the /64 that a customer of IPv6 has for themselves.
func Network(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if prefix, err := addr.Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return addr
}

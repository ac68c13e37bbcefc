package webpush

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// Dialer returns a function that connects to public addresses only, and to the hosts
// in privateHosts (as "host" or "host:port") wherever they lead. It is the one that
// push messages go by, for others who call addresses that somebody typed. Its refusal
// has a method Private that is true.
func Dialer(privateHosts []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return newDialer(privateHosts).dial
}

// Private says that the error is a refusal, and not a failure.
func (e *privateAddress) Private() bool { return true }

// IsListed says whether privateHosts has a host, as "host" or "host:port".
func IsListed(privateHosts []string, host, port string) bool {
	return isListed(privateHosts, host, port)
}

// CheckHost refuses a host by its looks with [ErrPrivate]: a local name, or a number
// that is not public, unless privateHosts has it. Where a name really leads is only
// known when it is looked up, which [Dialer] does.
func CheckHost(host, port string, privateHosts []string) error {
	if isListed(privateHosts, host, port) {
		return nil
	}
	host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		if !isPublic(ip) {
			return ErrPrivate
		}
		return nil
	}
	if isLocalName(host) {
		return ErrPrivate
	}
	return nil
}

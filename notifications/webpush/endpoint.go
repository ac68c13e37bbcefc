package webpush

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// What is wrong with an endpoint, as the end of a sentence.
var (
	ErrNotHTTPS = errors.New("is not an https address")
	ErrPrivate  = errors.New("leads into a private network")
)

// CheckEndpoint refuses an endpoint by its looks: [ErrNotHTTPS], or [ErrPrivate]
// for one that names a number or a local name in place of a public host, unless
// privateHosts has it (as "host" or "host:port"). Where a name really leads is only
// known when it is looked up, which happens at the connection.
func CheckEndpoint(endpoint string, privateHosts []string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return ErrNotHTTPS
	}
	if isListed(privateHosts, u.Hostname(), portOf(u)) {
		return nil
	}
	host := strings.ToLower(u.Hostname())
	if _, err := netip.ParseAddr(host); err == nil {
		return ErrPrivate // public or not: no push service goes by a number
	}
	if isLocalName(host) {
		return ErrPrivate
	}
	return nil
}

// isLocalName says whether a name in small letters is none of the public ones.
func isLocalName(host string) bool {
	// A dot at the end is another name for the same host, and a name without one, or
	// whose last part is a number, is none of the public ones.
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" || last == host || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return true
	}
	return slices.Contains([]string{"localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "arpa", "test", "invalid", "onion"}, last)
}

func isListed(hosts []string, host, port string) bool {
	return slices.ContainsFunc(hosts, func(listed string) bool {
		return strings.EqualFold(strings.Trim(listed, "[]"), host) || strings.EqualFold(listed, net.JoinHostPort(host, port))
	})
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return "443"
}

// privateAddress is the refusal of a connection.
type privateAddress struct{ host string }

func (e *privateAddress) Error() string { return e.host + " " + ErrPrivate.Error() }

// dialer connects to public addresses only. The address is judged after the name
// was looked up and right before the connection is made, so that a name which
// leads elsewhere the second time gains nothing.
type dialer struct {
	privateHosts []string
	free         net.Dialer // for the listed ones
	guarded      net.Dialer
}

func newDialer(privateHosts []string) *dialer {
	d := &dialer{privateHosts: privateHosts}
	d.free = net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	d.guarded = d.free
	d.guarded.Control = func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil || !isPublic(to.Addr()) {
			return &privateAddress{"this address"}
		}
		return nil
	}
	return d
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	if isListed(d.privateHosts, host, port) {
		return d.free.DialContext(ctx, network, address)
	}
	return d.guarded.DialContext(ctx, network, address)
}

// notPublic are the ranges of IANA's special-purpose registries that lead nowhere
// in public, beyond those that net/netip knows.
var notPublic = func() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}()

// embedded are the ranges whose addresses carry an IPv4 address that they lead to,
// and the byte at which it begins.
var embedded = map[netip.Prefix]int{
	netip.MustParsePrefix("64:ff9b::/96"):    12, // NAT64
	netip.MustParsePrefix("::ffff:0:0:0/96"): 12, // IPv4-translated
	netip.MustParsePrefix("2002::/16"):       2,  // 6to4
}

func isPublic(ip netip.Addr) bool {
	ip = ip.WithZone("").Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	for p, at := range embedded {
		if p.Contains(ip) {
			raw := ip.As16()
			return isPublic(netip.AddrFrom4([4]byte(raw[at : at+4])))
		}
	}
	return true
}

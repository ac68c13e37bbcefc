package hooks

import (
	"net/netip"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/internal/ratelimit"
)

// privateNetworks are where a proxy is as a rule: on this machine, or in a
// network that the internet does not reach.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// eventKeyAddress is where the requests inside a batch find whose batch it is.
const eventKeyAddress = "groundwork.limits.address" // netip.Addr

// network is what counts as the client's address, as 16 bytes.
func (l *limits) network(e *core.RequestEvent) string {
	bytes := ratelimit.Network(l.address(e)).As16()
	return string(bytes[:])
}

// address is the client's.
//
// PocketBase's setting says which headers tell it (Settings > Application > IP
// proxy headers); what it does not say is who may tell. Anybody could send such a header: it is
// believed from a trusted proxy only. Without the setting no header is.
func (l *limits) address(e *core.RequestEvent) netip.Addr {
	if addr, ok := e.Get(eventKeyAddress).(netip.Addr); ok {
		return addr
	}
	peer, err := netip.ParseAddrPort(e.Request.RemoteAddr)
	addr := peer.Addr()
	if err != nil {
		addr = netip.Addr{}
	}
	if len(e.App.Settings().TrustedProxy.Headers) > 0 && l.trusts(addr) {
		if told, err := netip.ParseAddr(e.RealIP()); err == nil {
			addr = told
		}
	}
	return addr
}

// shownAddress is the client's address for people to read: what anybody could send
// in a header is not shown as theirs.
func (l *limits) shownAddress(e *core.RequestEvent) string {
	if addr := l.address(e); addr.IsValid() {
		return addr.Unmap().StringExpanded()
	}
	return e.RemoteIP()
}

func (l *limits) trusts(peer netip.Addr) bool {
	networks := l.g.cfg.TrustedProxies
	if networks == nil {
		networks = privateNetworks
	}
	peer = peer.Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(peer) {
			return true
		}
	}
	return false
}

package config

import (
	"net/netip"
	"net/url"
	"strings"
)

// redis reads REDIS_URL. What is wrong is said without the address: it has a
// password.
func (r *reader) redis() string {
	address := strings.TrimSpace(r.get("REDIS_URL"))
	if address == "" {
		return ""
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || (u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix"):
		r.problem("REDIS_URL cannot be read: write redis://:PASSWORD@HOST:6379/0, or rediss:// for an encrypted line. Percent-encode special characters of the password.")
	case u.Scheme == "unix" && u.Path == "", u.Scheme != "unix" && u.Hostname() == "":
		r.problem("REDIS_URL names no host: write redis://:PASSWORD@HOST:6379/0.")
	default:
		return address
	}
	return ""
}

// trustedProxies reads TRUSTED_PROXIES: addresses and networks with commas
// between them, or * for everybody.
func (r *reader) trustedProxies() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range strings.Split(r.get("TRUSTED_PROXIES"), ",") {
		text = strings.TrimSpace(text)
		switch text {
		case "":
			continue
		case "*":
			all = append(all, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
			continue
		}
		if prefix, err := netip.ParsePrefix(text); err == nil {
			all = append(all, prefix.Masked())
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			r.problem("TRUSTED_PROXIES has %q, which is neither an address nor a network such as 10.0.0.0/8. Separate them with commas.", text)
			continue
		}
		all = append(all, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
	}
	return all
}

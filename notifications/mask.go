package notifications

import "strings"

// MaskAddress shortens an address so that a person recognises their own and a
// stranger cannot use it: "an…@example.com", "…4567", "…a1b2c3".
func MaskAddress(channel Channel, address string) string {
	if address == "" {
		return ""
	}
	if channel == ChannelEmail {
		local, domain, ok := strings.Cut(address, "@")
		if !ok {
			return "…"
		}
		runes := []rune(local)
		return string(runes[:min(2, len(runes)/2)]) + "…@" + domain
	}
	keep := 4
	if channel == ChannelPush {
		keep = 6
		// Of a browser's subscription the end of its address, and nothing of its keys.
		if sub, ok := strings.CutPrefix(address, `{"endpoint":"`); ok {
			address, _, _ = strings.Cut(sub, `"`)
		}
	}
	runes := []rune(address)
	return "…" + string(runes[max(len(runes)-keep, len(runes)/2):])
}

package webpush_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
	"github.com/groundworkhq/groundwork/notifications/webpush"
)

func TestEndpointsByTheirLooks(t *testing.T) {
	t.Parallel()
	listed := []string{"push.intranet:8443", "10.0.0.7", "[fd00::7]:9443", "Gateway.Internal"}
	for endpoint, want := range map[string]error{
		"https://fcm.googleapis.com/fcm/send/abc:APA91b":             nil,
		"https://updates.push.services.mozilla.com/wpush/v2/gAAAAAB": nil,
		"https://web.push.apple.com/QGuQyavXutnMH":                   nil,
		"https://wns2-par02p.notify.windows.com/w/?token=BQYAAAD":    nil,
		"https://push.example.com:8443/x":                            nil,
		"https://xn--bcher-kva.example/x":                            nil,
		"http://fcm.googleapis.com/x":                                webpush.ErrNotHTTPS,
		"ftp://fcm.googleapis.com/x":                                 webpush.ErrNotHTTPS,
		"https:fcm.googleapis.com":                                   webpush.ErrNotHTTPS,
		"https:///x":                                                 webpush.ErrNotHTTPS,
		"https://user@push.example.com/":                             webpush.ErrNotHTTPS,
		"https://user:pass@push.example.com/":                        webpush.ErrNotHTTPS,
		"https://push.example.com:x/":                                webpush.ErrNotHTTPS,
		"":                                                           webpush.ErrNotHTTPS,
		"https://127.0.0.1/x":                                        webpush.ErrPrivate,
		"https://127.0.0.1:8443/x":                                   webpush.ErrPrivate,
		"https://[::1]/x":                                            webpush.ErrPrivate,
		"https://[::ffff:10.0.0.1]/x":                                webpush.ErrPrivate,
		"https://[fe80::1%25eth0]/x":                                 webpush.ErrPrivate,
		"https://169.254.169.254/latest":                             webpush.ErrPrivate,
		"https://8.8.8.8/x":                                          webpush.ErrPrivate,
		"https://2130706433/x":                                       webpush.ErrPrivate,
		"https://0x7f000001/x":                                       webpush.ErrPrivate,
		"https://0x7f.0.0.1/x":                                       webpush.ErrPrivate,
		"https://127.1/x":                                            webpush.ErrPrivate,
		"https://0177.0.0.01/x":                                      webpush.ErrPrivate,
		"https://a.0x7f/x":                                           webpush.ErrPrivate,
		"https://localhost/x":                                        webpush.ErrPrivate,
		"https://LOCALHOST:8443/x":                                   webpush.ErrPrivate,
		"https://a.localhost/x":                                      webpush.ErrPrivate,
		"https://printer.local/x":                                    webpush.ErrPrivate,
		"https://metadata.google.internal/x":                         webpush.ErrPrivate,
		"https://intranet/x":                                         webpush.ErrPrivate,
		"https://web.push.apple.com./x":                              webpush.ErrPrivate,
		"https://push.intranet/x":                                    webpush.ErrPrivate,
		"https://push.intranet:8443/x":                               nil,
		"https://push.intranet:8444/x":                               webpush.ErrPrivate,
		"https://10.0.0.7/x":                                         nil,
		"https://10.0.0.7:9/x":                                       nil,
		"https://10.0.0.8/x":                                         webpush.ErrPrivate,
		"https://[fd00::7]:9443/x":                                   nil,
		"https://[fd00::7]/x":                                        webpush.ErrPrivate,
		"https://gateway.internal/x":                                 nil,
		"http://10.0.0.7/x":                                          webpush.ErrNotHTTPS,
	} {
		require.Equal(t, want, webpush.CheckEndpoint(endpoint, listed), endpoint)
	}
}

func TestPublicAddresses(t *testing.T) {
	t.Parallel()
	for address, public := range map[string]bool{
		"142.250.74.42": true, "1.1.1.1": true, "2a00:1450:4001:80f::200a": true, "::ffff:142.250.74.42": true, "64:ff9b::8efa:4a2a": true, "2002:8efa:4a2a::1": true,
		"100.63.255.255": true, "100.128.0.0": true, "172.15.0.1": true, "172.32.0.1": true, "192.167.1.1": true, "2606:4700::1": true,
		"0.0.0.0": false, "0.1.2.3": false, "127.0.0.1": false, "127.255.255.254": false, "10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false,
		"192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "100.127.255.255": false, "192.0.0.8": false, "192.0.2.1": false, "198.18.0.1": false,
		"198.19.255.255": false, "198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false, "239.1.1.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::127.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "fe80::1": false, "fe80::1%eth0": false, "febf::1": false, "fc00::1": false,
		"fdff::1": false, "fec0::1": false, "ff02::1": false, "2001:db8::1": false, "64:ff9b::7f00:1": false, "::ffff:0:7f00:1": false, "64:ff9b::a00:1": false, "64:ff9b:1::1": false,
		"2002:7f00:1::1": false, "2002:a00:1::1": false, "2001::1": false, "100::1": false,
	} {
		require.Equal(t, public, webpush.IsPublic(netip.MustParseAddr(address)), address)
	}
}

// A name that looks public and leads into the house is found out at the
// connection. localhost stands for it: it is the one such name that every machine
// has.
func TestConnectionsGoToPublicAddressesOnly(t *testing.T) {
	t.Parallel()
	x := newPeer(t, providertest.WebPushOptions{})
	_, port, err := net.SplitHostPort(x.service.Addr())
	require.NoError(t, err)
	for _, address := range []string{"localhost:" + port, "127.0.0.1:1", "[::1]:" + port, "[::ffff:127.0.0.1]:" + port} {
		_, err := webpush.Dial(t.Context(), x.Provider, address)
		require.ErrorContains(t, err, "leads into a private network", address)
	}
	// Through Send, by a name that passes at the registration.
	webpush.Resolve(x.Provider, func(string) string { return "localhost:" + port })
	token := strings.Replace(x.browser(1).JSON(), x.service.Addr(), "rebind.example.com", 1)
	o := x.Send(t.Context(), message(token, "hello"))
	require.Equal(t, notifications.TargetGone, o.Kind, o.Explanation)
	require.True(t, o.Suspect)
	require.Contains(t, o.Explanation, "WEBPUSH_PRIVATE_HOSTS")
	require.Zero(t, x.service.Total())
	require.Zero(t, x.service.Handshakes(), "not even a connection")

	y := newPeer(t, providertest.WebPushOptions{})
	conn, err := webpush.Dial(t.Context(), y.Provider, y.service.Addr())
	require.NoError(t, err, "the listed one")
	require.NoError(t, conn.Close())
}

func TestProxiesAreNotUsed(t *testing.T) {
	t.Parallel()
	x := newPeer(t, providertest.WebPushOptions{})
	require.False(t, webpush.HasProxy(x.Provider), "it would look the name up where nobody judges the address")
}

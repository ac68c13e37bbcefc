package accounts_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/accounts"
)

func TestDeviceName(t *testing.T) {
	t.Parallel()
	for userAgent, want := range map[string]string{
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36":                      "Chrome on macOS",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0":              "Edge on Windows",
		"Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0":                                                                     "Firefox on Linux",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1":    "Safari on iPhone",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0.0.0 Mobile/15E148 Safari/604.1": "Chrome on iPhone",
		"Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/143.0 Mobile/15E148 Safari/605.1.15":           "Firefox on iPad",
		"Mozilla/5.0 (Linux; Android 15; SM-S931B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36": "Samsung Internet on Android",
		"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36 OPR/90.0":                   "Opera on Android",
		"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36":                             "Chrome on ChromeOS",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/140.0.0.0 Safari/537.36":                              "Chrome on Linux",
		"Mozilla/5.0 (compatible)":                 "Browser",
		"okhttp/4.12.0":                            "Android app",
		"Dart/3.9 (dart:io)":                       "Flutter app",
		"MyShop/42 CFNetwork/3826.500 Darwin/24.6": "MyShop on an Apple device",
		"My Shop/1.2 (Android 15)":                 "My Shop on Android",
		"node":                                     "Node.js",
		"curl/8.14.1":                              "curl",
		"Go-http-client/2.0":                       "Go program",
		"":                                         "Unknown device",
		" \x00\x01":                                "Unknown device",
		"<script>alert(1)</script>":                "Unknown device",
		"{{7*7}}/1":                                "Unknown device",
		strings.Repeat("a", 3000):                  "Unknown device",
	} {
		require.Equal(t, want, accounts.DeviceName(userAgent), userAgent)
	}
}

func FuzzDeviceName(f *testing.F) {
	f.Add("Mozilla/5.0 (X11)")
	f.Add(strings.Repeat("é", 400))
	f.Add("\xff\xfe/\x00")
	f.Fuzz(func(t *testing.T, userAgent string) {
		kept := accounts.CleanUserAgent(userAgent)
		if len(kept) > 500 || !utf8.ValidString(kept) || strings.ContainsAny(kept, "\x00\n\r") {
			t.Fatalf("kept %q", kept)
		}
		if name := accounts.DeviceName(userAgent); name == "" || len(name) > 200 || !utf8.ValidString(name) {
			t.Fatalf("name %q", name)
		}
	})
}

package accounts

import (
	"regexp"
	"strings"
	"unicode"
)

// maxUserAgent is how much of a user agent is kept, in bytes.
const maxUserAgent = 500

// CleanUserAgent is what is stored of a User-Agent header: printable text of at
// most 500 bytes.
func CleanUserAgent(userAgent string) string {
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, userAgent)
	for len(text) > maxUserAgent {
		runes := []rune(text)
		text = string(runes[:len(runes)-1-(len(text)-maxUserAgent)/4])
	}
	return strings.TrimSpace(text)
}

// The first one that matches wins: most browsers name others too.
var browsers = []struct{ token, name string }{
	{"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"EdgiOS/", "Edge"},
	{"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"}, {"YaBrowser/", "Yandex Browser"},
	{"FxiOS/", "Firefox"}, {"Firefox/", "Firefox"},
	{"CriOS/", "Chrome"}, {"HeadlessChrome/", "Chrome"}, {"Chrome/", "Chrome"}, {"Chromium/", "Chrome"},
	{"Safari/", "Safari"},
}

var systems = []struct{ token, name string }{
	{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"}, {"Windows", "Windows"},
	{"Macintosh", "macOS"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"}, {"X11", "Linux"},
}

// tools are what apps use to speak HTTP, in the word before the slash.
var tools = map[string]string{
	"okhttp": "Android app", "dart": "Flutter app", "node": "Node.js", "node-fetch": "Node.js", "undici": "Node.js", "bun": "Bun", "deno": "Deno",
	"curl": "curl", "wget": "Wget", "go-http-client": "Go program", "python-requests": "Python program", "python-httpx": "Python program",
	"postmanruntime": "Postman", "insomnia": "Insomnia",
}

var product = regexp.MustCompile(`^([\p{L}\p{N}][\p{L}\p{N} ._\-]{0,59})(?:/|$)`)

// DeviceName is a user agent in words for the person whose device it is, such as
// "Chrome on macOS". It is a guess: a client may say what it likes.
func DeviceName(userAgent string) string {
	userAgent = CleanUserAgent(userAgent)
	if userAgent == "" {
		return "Unknown device"
	}
	browser, system := "", ""
	if strings.HasPrefix(userAgent, "Mozilla/") {
		for _, b := range browsers {
			if strings.Contains(userAgent, b.token) {
				browser = b.name
				break
			}
		}
		if browser == "" {
			browser = "Browser"
		}
	}
	for _, s := range systems {
		if strings.Contains(userAgent, s.token) {
			system = s.name
			break
		}
	}
	if browser == "" {
		browser = "Unknown device"
		if m := product.FindStringSubmatch(userAgent); m != nil {
			browser = strings.TrimSpace(m[1])
			if name, ok := tools[strings.ToLower(browser)]; ok {
				return name
			}
			if system == "" && strings.Contains(userAgent, "CFNetwork/") {
				system = "an Apple device"
			}
		}
	}
	if system == "" {
		return browser
	}
	return browser + " on " + system
}

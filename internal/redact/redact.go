// Package redact takes secrets out of what is logged.
//
// It owns the list of names whose values are secret and the shapes that give a
// secret away. It knows nothing of PocketBase or of where its callers write;
// hooks and the packages below call it.
package redact

import (
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Mark stands in for a secret.
const Mark = "[redacted]"

// secretNames are compared in lower case and without - and _.
var secretNames = map[string]bool{
	"password": true, "passwordconfirm": true, "oldpassword": true, "newpassword": true, "passwd": true, "token": true, "accesstoken": true, "refreshtoken": true,
	"idtoken": true, "tokenkey": true, "otpid": true, "mfaid": true, "code": true, "codeverifier": true, "createdata": true, "secret": true,
	"clientsecret": true, "apikey": true, "authorization": true, "proxyauthorization": true, "cookie": true, "setcookie": true, "groundworkkey": true, "signature": true,
}

// Name says whether the value of a field, parameter or header of this name is
// secret.
func Name(name string) bool {
	key := make([]byte, 0, 32) // on the stack: every field of every row in the log comes here
	for i := range len(name) {
		switch c := name[i]; {
		case c >= utf8.RuneSelf: // a letter may have a small one in ASCII
			return secretNames[joined.Replace(strings.ToLower(name))]
		case c == '-', c == '_':
		case 'A' <= c && c <= 'Z':
			key = append(key, c-'A'+'a')
		default:
			key = append(key, c)
		}
	}
	return secretNames[string(key)]
}

var joined = strings.NewReplacer("-", "", "_", "")

// names is secretNames as they are written, for free text.
const names = `pass(?:word(?:_?confirm)?|wd)|(?:old|new)_?password|(?:(?:access|refresh|id)[_-]?)?token(?:key)?|otp_?id|mfa_?id|code(?:_?verifier)?|createdata|(?:client[_-]?)?secret|api[_-]?key|authorization|(?:set-)?cookie|signature`

var (
	jwt    = regexp.MustCompile(`\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?`)
	bearer = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[^\s"',;]+`)
	// pair is name=value, name: value and "name":"value".
	pair = regexp.MustCompile(`(?i)(\\?["']?\b(?:` + names + `)\b\\?["']?\s*[:=]\s*)(\\?"(?:[^"\\]|\\[^"])*\\?"?|'[^']*'?|[^\s&,;}\])"']+)`)
	// long is what only machines write: keys in hex or base64.
	long = regexp.MustCompile(`\b(?:[A-Fa-f0-9]{32,}|[A-Za-z0-9+/_-]{48,}={0,2})`)
)

// shortest is the length of the shortest match of long.
const shortest = 32

// String takes secrets out of free text, such as an error.
func String(s string) string {
	s = withoutTokens(s)
	if holdsAny(s, &schemes) {
		s = bearer.ReplaceAllString(s, "$1 "+Mark)
	}
	if strings.ContainsAny(s, ":=") && holdsAny(s, &stems) {
		s = pair.ReplaceAllString(s, "$1"+Mark)
	}
	return withoutKeys(s)
}

// withoutTokens takes out what looks like a token of ours.
func withoutTokens(s string) string {
	if !strings.Contains(s, "eyJ") {
		return s
	}
	return jwt.ReplaceAllString(s, Mark)
}

// withoutKeys takes out what looks like a key. A path of this product is as long
// as one, and its words and ids have no capital letters; of 48 characters of
// base64 twenty are capitals.
func withoutKeys(s string) string {
	if !holdsRun(s, shortest) {
		return s
	}
	return long.ReplaceAllStringFunc(s, func(run string) string {
		if !strings.Contains(run, "/") {
			return Mark
		}
		capitals := 0
		for _, r := range run {
			if r >= 'A' && r <= 'Z' {
				capitals++
			}
		}
		if capitals >= 6 || strings.ContainsAny(run, "+=") {
			return Mark
		}
		segments := strings.Split(run, "/")
		for i, segment := range segments {
			if len(segment) >= longest {
				segments[i] = Mark
			}
		}
		return strings.Join(segments, "/")
	})
}

// longest is the length from which on a word is taken for a key.
const longest = 48

// URL takes secrets out of a path with its query: the values of secret
// parameters, and tokens that are part of the path. What cannot be parsed loses
// its whole query.
func URL(s string) string {
	path, query, has := strings.Cut(s, "?")
	path = withoutKeys(withoutTokens(path))
	if !has {
		return path
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return path + "?" + Mark
	}
	var parts []string
	for name, all := range values {
		for _, value := range all {
			if Name(name) {
				value = Mark
			} else {
				value = String(value)
			}
			parts = append(parts, String(name)+"="+value)
		}
	}
	return path + "?" + strings.Join(parts, "&")
}

// Value takes secrets out of decoded JSON, at any depth. It returns a copy.
func Value(v any) any {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "/") && strings.Contains(v, "?") {
			return URL(v)
		}
		return String(v)
	case []byte:
		return String(string(v))
	case error:
		return String(v.Error())
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, item := range v {
			if Name(name) {
				out[name] = Mark
			} else {
				out[name] = Value(item)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = Value(item)
		}
		return out
	case []string:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = String(item)
		}
		return out
	default:
		return v
	}
}

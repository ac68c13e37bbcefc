package redact

import (
	"strings"
	"unicode/utf8"
)

// Nearly everything that is logged holds no secret, and finding that out with
// the patterns costs more than the request it is about. What follows looks for
// something that each match must contain. It may say yes too often, and never
// no where a pattern matches.

// stems are in every name of the pattern pair, and schemes in every match of
// bearer, by their first letter, small and capital.
var (
	stems   = byFirstLetter("pass", "token", "otp", "mfa", "code", "createdata", "secret", "key", "authorization", "cookie", "signature")
	schemes = byFirstLetter("bearer", "basic")
)

func byFirstLetter(words ...string) (table [utf8.RuneSelf][]string) {
	for _, word := range words {
		for _, first := range []byte{word[0], word[0] - 'a' + 'A'} {
			table[first] = append(table[first], word)
		}
	}
	return table
}

// holdsAny says whether one of the words is in s, in small or capital letters.
// Beyond ASCII there are letters that patterns take for an s or a k: it says yes.
func holdsAny(s string, words *[utf8.RuneSelf][]string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return true
		}
		for _, word := range words[s[i]] {
			if len(s)-i >= len(word) && strings.EqualFold(s[i:i+len(word)], word) {
				return true
			}
		}
	}
	return false
}

// holdsRun says whether s has that many characters in a row of which keys are
// made: letters, digits and + / _ -.
func holdsRun(s string, length int) bool {
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '/', c == '_', c == '-':
			if n++; n == length {
				return true
			}
		default:
			n = 0
		}
	}
	return false
}

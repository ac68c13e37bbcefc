package versions

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"slices"
	"strings"
)

// Platforms that are known even when the collection has no row for them.
var builtinPlatforms = []string{"ios", "android", "web", "macos", "windows", "linux"}

// Rule is what the owner set for one platform.
type Rule struct {
	Platform    string
	Latest      Version // shown to the app; decides nothing
	Minimum     Version // below it: hard update; zero: none
	Recommended Version // below it: soft update; zero: none
	StoreURL    string
	Message     string
}

// Answer is the body of GET /api/version-check. Both flags can be set: an app
// looks at HardUpdate first.
type Answer struct {
	HardUpdate bool   `json:"hard_update"`
	SoftUpdate bool   `json:"soft_update"`
	Latest     string `json:"latest"`
	Minimum    string `json:"minimum"`
	StoreURL   string `json:"store_url"`
	Message    string `json:"message"`

	encoded []byte
}

// JSON is the answer's encoding, made once with the table; it must not be
// changed.
func (a Answer) JSON() []byte {
	if a.encoded == nil {
		return a.encode()
	}
	return a.encoded
}

func (a Answer) encode() []byte {
	// It cannot fail: texts and flags only, and broken UTF-8 is let through mangled,
	// as in PocketBase's own answers.
	b, _ := json.Marshal(a, jsontext.AllowInvalidUTF8(true))
	return b
}

// Table holds the rules of all platforms. It never changes after [NewTable] and
// may be read by any number of goroutines. The zero value knows the built-in
// platforms and has no rules.
type Table struct {
	rules map[string]*prepared
	known []string // sorted; nil: the built-in ones
}

// prepared is a rule with its four answers: none, soft, hard, both.
type prepared struct {
	Rule
	answers [4]Answer
}

func prepare(rule Rule) *prepared {
	p := &prepared{Rule: rule}
	for i := range p.answers {
		a := Answer{
			HardUpdate: i&2 != 0,
			SoftUpdate: i&1 != 0,
			Latest:     rule.Latest.String(),
			Minimum:    rule.Minimum.String(),
			StoreURL:   rule.StoreURL,
			Message:    rule.Message,
		}
		a.encoded = a.encode()
		p.answers[i] = a
	}
	return p
}

// noRule answers for a known platform that has no rule.
var noRule = prepare(Rule{})

// NewTable returns a table with the given rules, one per platform. platforms
// are known beyond the built-in ones and those of the rules.
func NewTable(platforms []string, rules []Rule) Table {
	t := Table{rules: make(map[string]*prepared, len(rules))}
	t.known = append(t.known, builtinPlatforms...)
	t.known = append(t.known, platforms...)
	for _, rule := range rules {
		t.rules[rule.Platform] = prepare(rule)
		t.known = append(t.known, rule.Platform)
	}
	slices.Sort(t.known)
	t.known = slices.Compact(t.known)
	return t
}

// UnknownPlatformError says that a platform is not known, and which ones are.
type UnknownPlatformError struct {
	Platform string
	Known    []string
}

func (e *UnknownPlatformError) Error() string {
	if e.Platform == "" {
		return "the platform is missing; use one of " + strings.Join(e.Known, ", ")
	}
	return fmt.Sprintf("the platform %s is not known; use one of %s", quote(e.Platform), strings.Join(e.Known, ", "))
}

// Check answers whether version must or should be updated on platform. The
// error is an [*UnknownPlatformError] or a [*SyntaxError].
func (t Table) Check(platform, version string) (Answer, error) {
	rule, ok := t.rules[platform]
	if !ok {
		known := t.known
		if known == nil {
			known = NewTable(nil, nil).known
		}
		if !slices.Contains(known, platform) {
			return Answer{}, &UnknownPlatformError{Platform: platform, Known: known}
		}
		rule = noRule
	}
	v, err := Parse(version)
	if err != nil {
		return Answer{}, err
	}
	i := 0
	if v.Before(rule.Recommended) {
		i |= 1
	}
	if v.Before(rule.Minimum) {
		i |= 2
	}
	return rule.answers[i], nil
}

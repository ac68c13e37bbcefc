package schedules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Key is one key of a payload, for people who write one.
type Key struct {
	Name string `json:"name"`
	Help string `json:"help"`
}

// payload is the object that a schedule's action gets, read key by key. The first
// thing that is wrong is kept; what is read after it is worthless.
type payload struct {
	values map[string]json.RawMessage
	err    error
}

// readPayload reads an object that has no other keys than these.
func readPayload(raw string, keys []Key) *payload {
	p := &payload{values: map[string]json.RawMessage{}}
	raw = strings.TrimSpace(raw)
	if raw == "" || raw == "null" {
		return p
	}
	d := json.NewDecoder(strings.NewReader(raw))
	if err := d.Decode(&p.values); err != nil || !strings.HasPrefix(raw, "{") {
		if at := brokenAt(raw); at != "" {
			p.fail("The payload is not JSON: something is wrong just before %s. Look for a comma too many, or a quote or comma that is missing.", at)
		}
		p.fail("The payload must be a JSON object, such as {%q: …}.", keys[0].Name)
		return p
	}
	if _, err := d.Token(); err != io.EOF {
		p.fail("The payload must be one JSON object and nothing after it.")
		return p
	}
	var known, unknown []string
	for _, k := range keys {
		known = append(known, k.Name)
	}
	for name := range p.values {
		if !slices.Contains(known, name) {
			unknown = append(unknown, fmt.Sprintf("%q", name))
		}
	}
	if slices.Sort(unknown); len(unknown) > 0 {
		p.fail("The payload does not know %s. It knows %s.", list(unknown, "and"), list(known, "and"))
	}
	return p
}

// brokenAt is where an object with a slip in it, which arrives as a text, stops being
// JSON; empty for what was never meant to be an object.
func brokenAt(raw string) string {
	var text string
	var slip *json.SyntaxError
	if json.Unmarshal([]byte(raw), &text) != nil || !strings.HasPrefix(strings.TrimSpace(text), "{") || !errors.As(json.Unmarshal([]byte(text), new(any)), &slip) {
		return ""
	}
	rest := strings.TrimSpace(text[max(slip.Offset-1, 0):])
	if rest == "" || slip.Offset >= int64(len(text)) {
		return "the end"
	}
	if short := []rune(rest); len(short) > 20 {
		rest = string(short[:20]) + "…"
	}
	return rest
}

func (p *payload) fail(format string, args ...any) {
	if p.err == nil {
		p.err = sentence(format, args...)
	}
}

// has says whether a key is there with something in it.
func (p *payload) has(name string) bool {
	raw, ok := p.values[name]
	return ok && !bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}

func (p *payload) read(name string, to any, form string) bool {
	if !p.has(name) {
		return false
	}
	if err := json.Unmarshal(p.values[name], to); err != nil {
		p.fail("%q in the payload must be %s.", name, form)
		return false
	}
	return true
}

func (p *payload) text(name string) string {
	var s string
	p.read(name, &s, "a text in quotes")
	return strings.TrimSpace(s)
}

func (p *payload) list(name string) []string {
	var all []string
	p.read(name, &all, `a list of texts, such as ["a", "b"]`)
	return all
}

func (p *payload) object(name string) map[string]any {
	var object map[string]any
	p.read(name, &object, `an object, such as {"key": "value"}`)
	return object
}

// number is a whole number within bounds; otherwise, when it is not there, def.
func (p *payload) number(name string, least, most, def int64) int64 {
	if !p.has(name) {
		return def
	}
	var n int64
	if err := json.Unmarshal(p.values[name], &n); err != nil || n < least || n > most {
		p.fail("%q in the payload must be a whole number from %s to %s.", name, grouped(least), grouped(most))
	}
	return n
}

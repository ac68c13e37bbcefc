package notifications

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/osteele/liquid"
	"github.com/pocketbase/pocketbase/core"
)

const (
	// maxRendered bounds one rendered part, and with it a message.
	maxRendered = 1 << 20
	// maxRenderTime is how long one part may take for one person.
	maxRenderTime = 2 * time.Second
	// maxRange is the longest range a template may count through.
	maxRange = 10_000
)

// Content is what a notification says, before it is rendered for a person. It
// encodes to JSON and is stored as a snapshot.
type Content struct {
	Title        string         `json:"title,omitempty"`
	Body         string         `json:"body,omitempty"`
	EmailSubject string         `json:"emailSubject,omitempty"`
	EmailHTML    string         `json:"emailHtml,omitempty"`
	SMSBody      string         `json:"smsBody,omitempty"`
	Image        string         `json:"image,omitempty"`
	Link         string         `json:"link,omitempty"`
	Data         map[string]any `json:"data,omitempty"`
}

// Rendered is [Content] for one person. EmailText is the plain part of an
// e-mail.
type Rendered struct {
	Title, Body, EmailSubject, EmailHTML, EmailText, SMSBody string
	Image, Link                                              string
	Data                                                     map[string]any
}

// TemplateError says what is wrong with a template, in a sentence for the
// person who wrote it. Field is the field of [Content] by its JSON name.
type TemplateError struct {
	Field    string
	Sentence string
}

// Error implements error.
func (e *TemplateError) Error() string { return e.Sentence }

// Compiled is a parsed [Content]. It is safe for concurrent use.
type Compiled struct {
	content Content
	parts   map[string]*part
}

// part is one parsed field. A part without any Liquid in it is its own result.
type part struct {
	field    string
	source   string
	template *liquid.Template // nil: no Liquid
	html     bool
}

// strictEngine refuses variables that do not exist: a blank in a broadcast is
// seen by everybody, an error by its author.
var strictEngine = func() *liquid.Engine {
	e := liquid.NewEngine()
	e.StrictVariables()
	return e
}()

// Compile parses all fields. The error is a [*TemplateError].
func Compile(c Content) (*Compiled, error) {
	compiled := &Compiled{content: c, parts: map[string]*part{}}
	for _, p := range []*part{
		{field: "title", source: c.Title}, {field: "body", source: c.Body},
		{field: "emailSubject", source: c.EmailSubject}, {field: "emailHtml", source: c.EmailHTML, html: true},
		{field: "smsBody", source: c.SMSBody}, {field: "link", source: c.Link}, {field: "image", source: c.Image},
	} {
		if strings.Contains(p.source, "{{") || strings.Contains(p.source, "{%") {
			for _, m := range rangePattern.FindAllStringSubmatch(p.source, -1) {
				if from, to := parseInt(m[1]), parseInt(m[2]); to-from > maxRange || to-from < -maxRange {
					return nil, &TemplateError{p.field, fmt.Sprintf("It counts through %s, which is too long: the limit is %d steps.", m[0], maxRange)}
				}
			}
			template, err := strictEngine.ParseString(p.source)
			if err != nil {
				return nil, &TemplateError{p.field, "The template cannot be read: " + plainLiquid(err) + "."}
			}
			p.template = template
		}
		compiled.parts[p.field] = p
	}
	return compiled, nil
}

var rangePattern = regexp.MustCompile(`\(\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*\)`)

// parseInt reads the bound of a range; one that does not fit is as good as
// endless.
func parseInt(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1 << 61
	}
	return n
}

// outputPattern finds the variable at the start of each output and condition.
var outputPattern = regexp.MustCompile(`\{\{-?\s*([A-Za-z_][\w.\-]*)`)

// Variables returns the variables that are put out, such as "user.name", each
// once and sorted.
func (c *Compiled) Variables() []string {
	var names []string
	for _, p := range c.parts {
		for _, m := range outputPattern.FindAllStringSubmatch(p.source, -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Render makes the message for one person. Its error is a [*TemplateError].
//
// In HTML every value is escaped, so that a script in somebody's name comes out
// as text.
func (c *Compiled) Render(vars map[string]any) (*Rendered, error) {
	r := &Rendered{Data: c.content.Data}
	var escaped map[string]any
	for _, out := range []struct {
		field string
		to    *string
	}{
		{"title", &r.Title}, {"body", &r.Body}, {"emailSubject", &r.EmailSubject}, {"emailHtml", &r.EmailHTML},
		{"smsBody", &r.SMSBody}, {"link", &r.Link}, {"image", &r.Image},
	} {
		p := c.parts[out.field]
		bindings := vars
		if p.html && p.template != nil {
			if escaped == nil {
				escaped, _ = escapeValue(vars).(map[string]any)
			}
			bindings = escaped
		}
		text, err := p.render(bindings)
		if err != nil {
			return nil, err
		}
		*out.to = text
	}
	if r.EmailSubject == "" {
		r.EmailSubject = orElse(r.Title, firstLine(r.Body))
	}
	r.EmailSubject = strings.Join(strings.Fields(r.EmailSubject), " ")
	r.EmailText = strings.TrimSpace(r.Body)
	if r.EmailText == "" {
		r.EmailText = r.Title
	}
	if r.Link != "" {
		r.EmailText += "\n\n" + r.Link
	}
	if r.EmailHTML == "" {
		r.EmailHTML = plainHTML(r)
	}
	return r, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func (p *part) render(vars map[string]any) (string, error) {
	if p.template == nil {
		return p.source, nil
	}
	type answer struct {
		text string
		err  error
	}
	// Liquid has no limit of its own: a loop that never ends keeps its goroutine
	// but not the caller.
	done := make(chan answer, 1)
	go func() {
		out := &limitedBuffer{}
		defer func() {
			switch r := recover(); {
			case r != nil && out.full: // the library panics when it cannot write
				done <- answer{err: errTooLong}
			case r != nil:
				done <- answer{err: fmt.Errorf("%v", r)}
			}
		}()
		err := p.template.FRender(out, vars)
		if out.full {
			done <- answer{err: errTooLong}
			return
		}
		if err != nil {
			done <- answer{err: err}
			return
		}
		done <- answer{text: out.String()}
	}()
	timer := time.NewTimer(maxRenderTime)
	defer timer.Stop()
	select {
	case a := <-done:
		switch {
		case errors.Is(a.err, errTooLong):
			return "", &TemplateError{p.field, "The text gets longer than 1 MB: look for a loop that repeats too much."}
		case a.err != nil:
			return "", &TemplateError{p.field, "The text cannot be made: " + plainLiquid(a.err) + "."}
		}
		return a.text, nil
	case <-timer.C:
		return "", &TemplateError{p.field, "The text takes too long to make: look for a loop that repeats too much."}
	}
}

var errTooLong = errors.New("too long")

type limitedBuffer struct {
	bytes.Buffer
	full bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxRendered {
		b.full = true
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}

var (
	liquidPosition  = regexp.MustCompile(`^Liquid error(?: \(line \d+\))?:\s*`)
	liquidUndefined = regexp.MustCompile(`undefined variable(?: in \{\{\s*(.*?)\s*\}\})?`)
	liquidSyntax    = regexp.MustCompile(`\s+in \{[{%].*$`)
)

// plainLiquid puts the library's message into the author's words.
func plainLiquid(err error) string {
	text := liquidPosition.ReplaceAllString(strings.TrimSpace(err.Error()), "")
	if strings.Contains(text, "undefined variable") {
		name := ""
		if m := liquidUndefined.FindStringSubmatch(text); m != nil {
			name = m[1]
		}
		if name == "" {
			if i := strings.Index(text, "{{"); i >= 0 {
				name = strings.Trim(text[i:], "{} ")
			}
		}
		return fmt.Sprintf("there is no variable %q; write {{ %s | default: \"…\" }} if it may be missing", name, name)
	}
	return liquidSyntax.ReplaceAllString(text, "")
}

// escapeValue escapes every string inside v for HTML.
func escapeValue(v any) any {
	switch v := v.(type) {
	case string:
		return html.EscapeString(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[k] = escapeValue(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = escapeValue(item)
		}
		return out
	case []string:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = html.EscapeString(item)
		}
		return out
	default:
		return v
	}
}

// plainHTML is the HTML part of an e-mail whose author wrote none.
func plainHTML(r *Rendered) string {
	var b strings.Builder
	b.WriteString(`<!doctype html><html><body style="margin:0;padding:24px;font:16px/1.5 -apple-system,'Segoe UI',Roboto,sans-serif;color:#1a1a1a">`)
	b.WriteString(`<div style="max-width:560px;margin:0 auto">`)
	if r.Title != "" {
		b.WriteString(`<h1 style="font-size:20px;margin:0 0 16px">` + html.EscapeString(r.Title) + `</h1>`)
	}
	for _, paragraph := range strings.Split(strings.TrimSpace(r.Body), "\n\n") {
		if strings.TrimSpace(paragraph) != "" {
			b.WriteString(`<p style="margin:0 0 16px">` + strings.ReplaceAll(html.EscapeString(paragraph), "\n", "<br>") + `</p>`)
		}
	}
	if r.Link != "" {
		b.WriteString(`<p style="margin:0"><a href="` + html.EscapeString(r.Link) + `">` + html.EscapeString(r.Link) + `</a></p>`)
	}
	b.WriteString(`</div></body></html>`)
	return b.String()
}

// contentOfTemplate reads a record of notification_templates.
func contentOfTemplate(record *core.Record) Content {
	c := Content{Title: record.GetString("title"), Body: record.GetString("body"), EmailSubject: record.GetString("emailSubject"),
		EmailHTML: record.GetString("emailHtml"), SMSBody: record.GetString("smsBody")}
	_ = record.UnmarshalJSONField("data", &c.Data) // the field's own validation refuses what is not an object
	return c
}

// userVars is what a template sees of a person: no hidden field, password or
// key.
func userVars(user *core.Record) map[string]any {
	vars := recordVars(user)
	vars["email"] = user.Email()
	return vars
}

// recordVars is what a template sees of a record: its visible fields.
func recordVars(record *core.Record) map[string]any {
	vars := map[string]any{"id": record.Id}
	for _, field := range record.Collection().Fields {
		name := field.GetName()
		if field.GetHidden() || field.Type() == core.FieldTypePassword || name == core.FieldNameTokenKey {
			continue
		}
		switch field.Type() {
		case core.FieldTypeNumber:
			n := record.GetFloat(name)
			if n == float64(int64(n)) {
				vars[name] = int64(n)
			} else {
				vars[name] = n
			}
		case core.FieldTypeBool:
			vars[name] = record.GetBool(name)
		case core.FieldTypeDate, core.FieldTypeAutodate:
			if d := record.GetDateTime(name); d.IsZero() {
				vars[name] = ""
			} else {
				vars[name] = d.Time()
			}
		case core.FieldTypeJSON:
			var v any
			_ = record.UnmarshalJSONField(name, &v)
			if v == nil {
				v = ""
			}
			vars[name] = v
		default:
			if many, ok := field.(core.MultiValuer); ok && many.IsMultiple() {
				vars[name] = record.GetStringSlice(name)
			} else {
				vars[name] = record.GetString(name)
			}
		}
	}
	return vars
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// CheckTemplate refuses a record of notification_templates that cannot be
// parsed or says nothing. The error is [FieldErrors].
func CheckTemplate(record *core.Record) error {
	errs := FieldErrors{}
	c := contentOfTemplate(record)
	if strings.TrimSpace(c.Title+c.Body+c.EmailHTML+c.SMSBody) == "" {
		errs.add("title", "required", "Write a title or a text.")
	}
	if _, err := Compile(c); err != nil {
		if err := errs.addTemplate(err); err != nil {
			return err
		}
	}
	return errs.orNil()
}

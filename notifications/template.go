package notifications

import (
	"errors"
	"fmt"
	"html"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/osteele/liquid/render"
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

	// Translations are the other languages, by locale as in fr-CA.
	Translations map[string]Translation `json:"translations,omitempty"`
}

// Rendered is [Content] for one person. EmailText is the plain part of an
// e-mail.
type Rendered struct {
	Title, Body, EmailSubject, EmailHTML, EmailText, SMSBody string
	Image, Link                                              string
	Data                                                     map[string]any
}

// TemplateError says what is wrong with a template, in a sentence for the
// person who wrote it.
type TemplateError struct {
	// Field is the field of [Content] by its JSON name; of Locale's translation,
	// when that is not empty.
	Field, Locale string

	// Line is the line of the field's text, from 1; 0 when it is all of it.
	Line int

	Sentence string
}

// Error is the sentence; for a translation it begins with where the mistake is,
// such as "In fr-CA, body, line 2: ".
func (e *TemplateError) Error() string {
	if e.Locale == "" {
		return e.Sentence
	}
	where := "In " + e.Locale
	if e.Field != "" {
		where += ", " + e.Field
	}
	if e.Line > 0 {
		where += fmt.Sprintf(", line %d", e.Line)
	}
	return where + ": " + e.Sentence
}

// Compiled is a parsed [Content]. It is safe for concurrent use.
type Compiled struct {
	content Content
	parts   map[string]*part
	locales map[string]*Compiled // the translations, by locale in small letters
}

// part is one parsed field. A part without any Liquid in it is its own result.
type part struct {
	field    string
	locale   string // of the translation that it is of; empty for the template's own
	source   string
	template render.Node // nil: no Liquid
	html     bool
	loops    bool // it may take long: only what has tags can
	tags     []tag
}

// Compile parses all fields. The error is a [*TemplateError].
func Compile(c Content) (*Compiled, error) {
	compiled := &Compiled{content: c, parts: map[string]*part{}}
	for _, p := range []*part{
		{field: "title", source: c.Title}, {field: "body", source: c.Body},
		{field: "emailSubject", source: c.EmailSubject}, {field: "emailHtml", source: c.EmailHTML, html: true},
		{field: "smsBody", source: c.SMSBody}, {field: "link", source: c.Link}, {field: "image", source: c.Image},
	} {
		if err := p.compile(); err != nil {
			return nil, err
		}
		compiled.parts[p.field] = p
	}
	beforeLiquid, _, _ := strings.Cut(c.Link, "{")
	if sentence := checkLink(beforeLiquid); sentence != "" {
		return nil, &TemplateError{Field: "link", Sentence: sentence}
	}
	return compiled, compiled.compileTranslations()
}

func (p *part) compile() error {
	if !strings.Contains(p.source, "{{") && !strings.Contains(p.source, "{%") {
		return nil
	}
	template, wrong := parseLiquid(p.field, p.source)
	if wrong != nil {
		wrong.Locale = p.locale
		return wrong
	}
	p.template = template
	p.loops = strings.Contains(p.source, "{%")
	p.tags = tagsOf(p.source)
	if line, sentence := checkFilters(p.tags, p.html); sentence != "" {
		return p.wrong(line, sentence)
	}
	return nil
}

func (p *part) wrong(line int, sentence string) *TemplateError {
	return &TemplateError{Field: p.field, Locale: p.locale, Line: line, Sentence: sentence}
}

// scriptSchemes are those of addresses that run as a script, or are a page of
// their own, in the app or on the site that opens them.
var scriptSchemes = []string{"javascript", "data", "vbscript"}

// checkLink refuses an address with one of [scriptSchemes]. Browsers pass over
// spaces and control characters in a scheme, and so does this.
func checkLink(link string) (sentence string) {
	scheme, _, found := strings.Cut(link, ":")
	if !found {
		return ""
	}
	scheme = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, scheme)
	for _, script := range scriptSchemes {
		if strings.EqualFold(scheme, script) {
			return fmt.Sprintf("A link cannot begin with %s: because it could run a script. Write a web address such as https://example.com, or a link into your app.", script)
		}
	}
	return ""
}

// outputPattern finds the variable at the start of each output and condition.
var outputPattern = regexp.MustCompile(`\{\{-?\s*([A-Za-z_][\w.\-]*)`)

// Variables returns the variables that are put out, such as "user.name", each
// once and sorted.
func (c *Compiled) Variables() []string {
	var names []string
	for _, p := range c.allParts() {
		for _, m := range outputPattern.FindAllStringSubmatch(p.source, -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

var (
	liquidTag = regexp.MustCompile(`(?s)\{\{.*?\}\}|\{%.*?%\}`)
	// userPattern finds the word user, what stands before it, and the field after
	// it.
	userPattern = regexp.MustCompile(`(^|[^\w.\-])user\b(?:\.([A-Za-z_]\w*))?`)
)

// userFields returns the fields of the person that the texts name. whole is true
// when they use the person in another way, such as user["name"].
func (c *Compiled) userFields() (fields []string, whole bool) {
	for _, p := range c.allParts() {
		if p.template == nil {
			continue
		}
		for _, tag := range liquidTag.FindAllString(p.source, -1) {
			for _, m := range userPattern.FindAllStringSubmatch(tag, -1) {
				if m[2] == "" {
					return nil, true
				}
				fields = append(fields, m[2])
			}
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields), false
}

var (
	userFieldPattern   = regexp.MustCompile(`(?:^|[^\w.\-])user\.([A-Za-z_][\w\-]*\??)`)
	userDefinedPattern = regexp.MustCompile(`^(?:assign|capture|for|tablerow)\s+user\s*(?:=|in\b|$)`)
	defaultPattern     = regexp.MustCompile(`\|\s*default\b`)
)

// addUnknownFields refuses what the texts name of the person and no text ever
// sees: no such field, or a hidden one. With a default it is left to the author.
func (e FieldErrors) addUnknownFields(app core.App, c *Compiled) error {
	var users *core.Collection
	for _, p := range c.allParts() {
		if slices.ContainsFunc(p.tags, func(t tag) bool { return userDefinedPattern.MatchString(t.text) }) {
			continue // it is another user there
		}
		for _, t := range p.tags {
			for _, m := range userFieldPattern.FindAllStringSubmatchIndex(t.text, -1) {
				name := t.text[m[2]:m[3]]
				if name == core.FieldNameEmail || defaultPattern.MatchString(t.text[m[1]:]) {
					continue
				}
				if users == nil {
					var err error
					if users, err = UsersCollection(app); err != nil {
						return err
					}
				}
				switch f := users.Fields.GetByName(name); {
				case f == nil:
					e.addWrong(p.wrong(t.line, noSuchVariable("user."+name)))
				case !isShown(f):
					e.addWrong(p.wrong(t.line, fmt.Sprintf("The field \"%s\" of %s is hidden, so that no message can show it. Leave out user.%s, or make the field visible.", name, users.Name, name)))
				}
			}
		}
	}
	return nil
}

// loops says whether a part may take long.
func (c *Compiled) loops() bool {
	for _, p := range c.allParts() {
		if p.loops {
			return true
		}
	}
	return false
}

// Render makes the message for one person on one channel; on "" every part of
// it, to find what is wrong with any. Its error is a [*TemplateError].
//
// In HTML every value is escaped, so that a script in somebody's name comes out
// as text.
func (c *Compiled) Render(vars map[string]any, channel Channel) (*Rendered, error) {
	r := &Rendered{Data: c.content.Data}
	for _, out := range []struct {
		field string
		only  Channel // "": on every channel
		to    *string
	}{
		{"title", "", &r.Title}, {"body", "", &r.Body}, {"emailSubject", ChannelEmail, &r.EmailSubject}, {"emailHtml", ChannelEmail, &r.EmailHTML},
		{"smsBody", ChannelSMS, &r.SMSBody}, {"link", "", &r.Link}, {"image", "", &r.Image},
	} {
		if channel != "" && out.only != "" && out.only != channel {
			continue
		}
		p := c.parts[out.field]
		bindings := vars
		if p.html && p.template != nil {
			bindings, _ = escapeValue(vars).(map[string]any)
		}
		text, err := p.render(bindings)
		if err != nil {
			return nil, err
		}
		*out.to = text
	}
	// A variable may have brought it in.
	if sentence := checkLink(r.Link); sentence != "" {
		return nil, &TemplateError{Field: "link", Sentence: sentence}
	}
	if channel == "" || channel == ChannelEmail {
		r.completeEmail()
	}
	return r, nil
}

// textOfSMS is what an SMS says.
func (r *Rendered) textOfSMS() string { return orElse(r.SMSBody, orElse(r.Body, r.Title)) }

// completeEmail fills in what the author left to be made from the rest.
func (r *Rendered) completeEmail() {
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
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func (p *part) render(vars map[string]any) (string, error) {
	if p.template == nil {
		return p.source, nil
	}
	if !p.loops {
		return p.result(renderLiquid(p.template, vars, newBudget()))
	}
	type answer struct {
		text string
		err  error
	}
	// The budget ends what takes too long at the next turn of a loop; nobody waits
	// for what comes before that.
	done := make(chan answer, 1)
	go func() {
		text, err := renderLiquid(p.template, vars, newBudget())
		done <- answer{text, err}
	}()
	timer := time.NewTimer(maxRenderTime)
	defer timer.Stop()
	select {
	case a := <-done:
		return p.result(a.text, a.err)
	case <-timer.C:
		return "", p.wrong(0, tooSlow)
	}
}

func (p *part) result(text string, err error) (string, error) {
	switch {
	case errors.Is(err, errTooLong):
		return "", p.wrong(0, "The text gets longer than 1 MB: look for a loop that repeats too much.")
	case errors.Is(err, errTooSlow):
		return "", p.wrong(0, tooSlow)
	case err != nil:
		line := 0
		if at, ok := err.(render.Error); ok { //nolint:errorlint // the library's own, never wrapped
			line = at.LineNumber()
		}
		return "", p.wrong(line, plainLiquid("The text cannot be made", err))
	}
	return text, nil
}

const tooSlow = "The text takes too long to make: look for a loop that repeats too much."

var (
	liquidPosition  = regexp.MustCompile(`^Liquid error(?: \(line \d+\))?:\s*`)
	liquidUndefined = regexp.MustCompile(`undefined variable(?: in \{\{\s*(.*?)\s*\}\})?`)
	liquidSyntax    = regexp.MustCompile(`\s+in \{[{%].*$`)
)

// plainLiquid puts the library's message into the author's words: a sentence
// that begins with what cannot be done.
func plainLiquid(cannot string, err error) string {
	text := strings.ReplaceAll(liquidPosition.ReplaceAllString(strings.TrimSpace(err.Error()), ""), captureTag, "capture")
	text, _, _ = strings.Cut(text, "\nOriginal stacktrace")
	if strings.Contains(text, "runtime error") {
		text = "a filter was given a number that it cannot count with"
	}
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
		return noSuchVariable(strings.Trim(name, "- "))
	}
	return cannot + ": " + liquidSyntax.ReplaceAllString(text, "") + "."
}

func noSuchVariable(name string) string {
	if name == "record" || strings.HasPrefix(name, "record.") {
		return fmt.Sprintf("There is no \"%s\". Only a message that a trigger sends is about a record; in that case check the spelling, and if it may be missing, write {{ %s | default: \"…\" }}.", name, name)
	}
	return fmt.Sprintf("There is no \"%s\". Check the spelling; if it may be missing, write {{ %s | default: \"…\" }}.", name, name)
}

// escapeValue escapes every string inside v for HTML, the names in a JSON field
// too: a person may have chosen them, and a loop puts them out.
func escapeValue(v any) any {
	switch v := v.(type) {
	case string:
		return html.EscapeString(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[html.EscapeString(k)] = escapeValue(item)
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
	if r.Image != "" {
		b.WriteString(`<p style="margin:0 0 16px"><img src="` + html.EscapeString(r.Image) + `" alt="" style="max-width:100%"></p>`)
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

// contentOfTemplate reads a record of notification_templates. The error is about
// its translations; see [translationsOf].
func contentOfTemplate(record *core.Record) (Content, error) {
	c := Content{Title: record.GetString("title"), Body: record.GetString("body"), EmailSubject: record.GetString("emailSubject"),
		EmailHTML: record.GetString("emailHtml"), SMSBody: record.GetString("smsBody")}
	_ = record.UnmarshalJSONField("data", &c.Data) // the field's own validation refuses what is not an object
	var err error
	c.Translations, err = translationsOf(record)
	return c, err
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
		if !isShown(field) {
			continue
		}
		switch field.Type() {
		case core.FieldTypeNumber:
			vars[name] = numberVar(record.GetFloat(name))
		case core.FieldTypeBool:
			vars[name] = record.GetBool(name)
		case core.FieldTypeDate, core.FieldTypeAutodate:
			vars[name] = dateVar(record.GetDateTime(name))
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

// isShown says whether a template may see a field.
func isShown(f core.Field) bool {
	return !f.GetHidden() && f.Type() != core.FieldTypePassword && f.GetName() != core.FieldNameTokenKey
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// CheckTemplate refuses a record of notification_templates that cannot be
// parsed, says nothing, or names a field that people do not have. The error is
// [FieldErrors] when the author can mend it.
func CheckTemplate(app core.App, record *core.Record) error {
	errs := FieldErrors{}
	c, err := contentOfTemplate(record)
	if err != nil {
		if err := errs.addError("translations", err); err != nil {
			return err
		}
	}
	if dataFrom := record.GetString("dataFrom"); dataFrom != "" {
		if _, err := findDataFrom(app, dataFrom); err != nil {
			if err := errs.addError("dataFrom", err); err != nil {
				return err
			}
		}
	}
	if strings.TrimSpace(c.Title+c.Body+c.EmailHTML+c.SMSBody) == "" {
		errs.add("title", "required", "Write a title or a text.")
	}
	compiled, err := Compile(c)
	if err != nil {
		err = errs.addTemplate(err)
	} else {
		err = errs.addUnknownFields(app, compiled)
	}
	if err != nil {
		return err
	}
	return errs.orNil()
}

package notifications

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pocketbase/pocketbase/core"
	"golang.org/x/text/language"
)

// maxLanguages is how many translations a template may have: each is read anew
// for every batch.
const maxLanguages = 100

// Translation is what a template says in one language. A field that is empty
// here comes from the next language that is tried; see [Compiled.In].
type Translation struct {
	Title        string         `json:"title,omitempty"`
	Body         string         `json:"body,omitempty"`
	EmailSubject string         `json:"emailSubject,omitempty"`
	EmailHTML    string         `json:"emailHtml,omitempty"`
	SMSBody      string         `json:"smsBody,omitempty"`
	Data         map[string]any `json:"data,omitempty"` // instead of the template's, not besides
}

// translatedFields are the fields of a translation, in the order of the form.
var translatedFields = []string{"title", "body", "emailSubject", "emailHtml", "smsBody", "data"}

// text is a field of the translation that holds a text.
func (t *Translation) text(field string) *string {
	switch field {
	case "title":
		return &t.Title
	case "body":
		return &t.Body
	case "emailSubject":
		return &t.EmailSubject
	case "emailHtml":
		return &t.EmailHTML
	case "smsBody":
		return &t.SMSBody
	default:
		return nil
	}
}

// translationsOf reads the field translations of a template, by locale in its
// usual spelling (fr-CA). The error is a [*TemplateError] about the first thing
// that is wrong.
func translationsOf(template *core.Record) (map[string]Translation, error) {
	raw, err := json.Marshal(template.Get("translations"))
	if err != nil || slices.Contains([]string{"", "null", `""`}, string(bytes.TrimSpace(raw))) {
		return nil, nil
	}
	const example = `{"fr": {"title": "Bienvenue"}}`
	var byLocale map[string]json.RawMessage
	if err := json.Unmarshal(raw, &byLocale); err != nil {
		return nil, &TemplateError{Sentence: "This must be a JSON object by language code, such as " + example + "."}
	}
	if len(byLocale) > maxLanguages {
		return nil, &TemplateError{Sentence: fmt.Sprintf("There are %d languages, which is too many: the limit is %d.", len(byLocale), maxLanguages)}
	}
	all, written := map[string]Translation{}, map[string]string{}
	for _, locale := range slices.Sorted(maps.Keys(byLocale)) {
		tag, err := language.Parse(locale)
		if err != nil || tag == language.Und {
			return nil, &TemplateError{Locale: orElse(locale, `""`), Sentence: "There is no such language: write it like fr or fr-CA."}
		}
		if other, twice := written[tag.String()]; twice {
			return nil, &TemplateError{Locale: locale, Sentence: fmt.Sprintf("This is the same language as %s: put both into one.", other)}
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(byLocale[locale], &fields); err != nil || fields == nil {
			return nil, &TemplateError{Locale: locale, Sentence: `This must be a JSON object, such as {"title": "Bienvenue"}.`}
		}
		t, wrong := readTranslation(template.Collection(), fields)
		if wrong != nil {
			wrong.Locale = locale
			return nil, wrong
		}
		all[tag.String()], written[tag.String()] = t, locale
	}
	return all, nil
}

func readTranslation(templates *core.Collection, fields map[string]json.RawMessage) (t Translation, wrong *TemplateError) {
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		raw := fields[field]
		switch text := t.text(field); {
		case string(raw) == "null":
			if !slices.Contains(translatedFields, field) {
				return t, unknownInTranslation(field)
			}
		case text != nil:
			if err := json.Unmarshal(raw, text); err != nil {
				return t, &TemplateError{Field: field, Sentence: "This must be a text in quotation marks."}
			}
			f, ok := templates.Fields.GetByName(field).(*core.TextField)
			if n := utf8.RuneCountInString(*text); ok && f.Max > 0 && n > f.Max {
				return t, &TemplateError{Field: field, Sentence: fmt.Sprintf("This has %d characters, which is too long: the limit is %d.", n, f.Max)}
			}
			if strings.ContainsRune(*text, 0) {
				return t, &TemplateError{Field: field, Sentence: "This contains characters that cannot be written; type it again instead of pasting it."}
			}
		case field == "data":
			if err := json.Unmarshal(raw, &t.Data); err != nil {
				return t, &TemplateError{Field: field, Sentence: `This must be a JSON object, such as {"screen": "orders"}.`}
			}
		default:
			return t, unknownInTranslation(field)
		}
	}
	return t, nil
}

func unknownInTranslation(field string) *TemplateError {
	return &TemplateError{Sentence: fmt.Sprintf("%q is not known here. Known are %s.", field, strings.Join(translatedFields, ", "))}
}

// without empties a field of all translations: the notification says it itself.
func (c *Content) without(field string) {
	for locale, t := range c.Translations {
		if text := t.text(field); text != nil {
			*text = ""
		} else {
			t.Data = nil
		}
		c.Translations[locale] = t
	}
}

// compileTranslations parses all translations. Each is then whole: what it leaves
// out is there from the next language, and at last from the template itself.
func (c *Compiled) compileTranslations() error {
	if len(c.content.Translations) == 0 {
		return nil
	}
	own := map[string]map[string]*part{} // by locale and field
	for _, locale := range slices.Sorted(maps.Keys(c.content.Translations)) {
		t := c.content.Translations[locale]
		own[locale] = map[string]*part{}
		for _, field := range translatedFields {
			source := t.text(field)
			if source == nil || *source == "" {
				continue
			}
			p := &part{field: field, locale: locale, source: *source, html: field == "emailHtml"}
			if err := p.compile(); err != nil {
				return err
			}
			own[locale][field] = p
		}
	}
	c.locales = map[string]*Compiled{}
	for locale := range own {
		whole := &Compiled{content: c.content, parts: maps.Clone(c.parts)}
		for _, l := range slices.Backward(fallbacks(locale)) {
			maps.Copy(whole.parts, own[l])
			if data := c.content.Translations[l].Data; len(data) > 0 {
				whole.content.Data = data
			}
		}
		c.locales[strings.ToLower(locale)] = whole
	}
	return nil
}

// fallbacks are the locales that stand in for one, itself the first: fr-CA, fr.
func fallbacks(locale string) []string {
	all := []string{locale}
	for {
		i := strings.LastIndexByte(locale, '-')
		if i <= 0 {
			return all
		}
		locale = locale[:i]
		all = append(all, locale)
	}
}

// In returns the texts in a person's language: fr-CA, then fr, then the
// template's own. A locale that does not exist or is written wrongly gets the
// template's own.
func (c *Compiled) In(locale string) *Compiled {
	if len(c.locales) == 0 || locale == "" {
		return c
	}
	written := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(locale), "_", "-"))
	if texts := c.best(written); texts != nil {
		return texts
	}
	// Some languages have two codes, such as he and iw.
	if tag, err := language.Parse(written); err == nil {
		if texts := c.best(strings.ToLower(tag.String())); texts != nil {
			return texts
		}
	}
	return c
}

func (c *Compiled) best(locale string) *Compiled {
	for _, l := range fallbacks(locale) {
		if texts := c.locales[l]; texts != nil {
			return texts
		}
	}
	return nil
}

// everyLanguage are the texts in all languages, the template's own first.
func (c *Compiled) everyLanguage() []*Compiled {
	all := []*Compiled{c}
	for _, locale := range slices.Sorted(maps.Keys(c.locales)) {
		all = append(all, c.locales[locale])
	}
	return all
}

// allParts are the parts of all languages, each once.
func (c *Compiled) allParts() []*part {
	var all []*part
	seen := map[*part]bool{}
	for _, texts := range c.everyLanguage() {
		for _, field := range slices.Sorted(maps.Keys(texts.parts)) {
			if p := texts.parts[field]; !seen[p] {
				seen[p] = true
				all = append(all, p)
			}
		}
	}
	return all
}

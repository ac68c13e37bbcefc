package ratelimit

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// Collection is the id of the rate_limits collection.
const Collection = "gw_rate_limits"

// Names of the collection's fields.
const (
	fieldName    = "name"
	fieldRoute   = "route"
	fieldWho     = "audience"
	fieldKeyBy   = "keyBy"
	fieldCounts  = "counts"
	fieldLimit   = "limit"
	fieldSeconds = "windowSeconds"
	fieldEnabled = "enabled"
)

// Audience is whose requests a rule is about.
type Audience string

const (
	Guests   Audience = "guest"
	SignedIn Audience = "signed_in"
	Everyone Audience = "all"
)

// What a rule counts by. Beside these there is body:FIELD.
const (
	KeyIP      = "ip"
	KeyUser    = "user"
	KeyGlobal  = "global"
	KeyAccount = "account"

	keyBodyPrefix = "body:"
)

const (
	maxLimit = 1_000_000
	// maxSecurityLimit keeps a security counter small: each arrival is a row.
	maxSecurityLimit  = 1_000
	maxSecurityWindow = 7 * 24 * time.Hour
	maxWindow         = 31 * 24 * time.Hour
)

// Rule is one limit that is switched on.
type Rule struct {
	ID       string
	Name     string
	Audience Audience
	KeyBy    string // KeyIP …, or KeyBody with Field
	Field    string // of the body, for body:FIELD
	Failures bool   // counts requests that fail, not all
	Window

	route  route
	item   string   // the rule's name as a structured-field string
	policy []string // its item of RateLimit-Policy, the only one
}

// KeyBody is KeyBy of a rule that counts by a field of the body.
const KeyBody = "body"

// Security says that the rule's counters survive a restart.
func (r *Rule) Security() bool {
	return r.Failures || r.KeyBy == KeyAccount || r.KeyBy == KeyBody
}

// NeedsBody says that it takes the body to find the rule's key.
func (r *Rule) NeedsBody() bool { return r.KeyBy == KeyAccount || r.KeyBy == KeyBody }

// Load reads the rules that are switched on. One that cannot be read (a raw SQL
// edit can store it) is left out and logged.
func Load(app core.App) (*Table, error) {
	collection, err := app.FindCachedCollectionByNameOrId(Collection)
	if err != nil {
		return nil, fmt.Errorf("find collection %s: %w", Collection, err)
	}
	records, err := app.FindRecordsByFilter(collection, fieldEnabled+" = true", "@rowid", 0, 0)
	if err != nil {
		return nil, fmt.Errorf("read collection %s: %w", collection.Name, err)
	}
	var rules []*Rule
	for _, record := range records {
		rule, problems := parse(record)
		if len(problems) > 0 {
			app.Logger().Warn("A row of rate_limits is ignored.", slog.String("id", record.Id),
				slog.String("field", problems[0].Field), slog.String("error", problems[0].Text))
			continue
		}
		rules = append(rules, rule)
	}
	return NewTable(rules), nil
}

// FieldError is one thing that is wrong with a record of the collection.
type FieldError struct {
	Field string
	Code  string // stable, for programs
	Text  string // one sentence
}

// CheckRecord tidies the record (spaces, the method in capitals, what may be
// left empty) and returns what is wrong with it, at most one error per field.
func CheckRecord(record *core.Record) []FieldError {
	record.Set(fieldName, strings.TrimSpace(record.GetString(fieldName)))
	record.Set(fieldRoute, tidyRoute(record.GetString(fieldRoute)))
	record.Set(fieldKeyBy, strings.TrimSpace(record.GetString(fieldKeyBy)))
	if record.GetString(fieldWho) == "" {
		record.Set(fieldWho, string(Everyone))
	}
	if record.GetString(fieldCounts) == "" {
		record.Set(fieldCounts, "all")
	}
	_, problems := parse(record)
	return problems
}

var fieldPattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,99}$`)

func parse(record *core.Record) (*Rule, []FieldError) {
	var problems []FieldError
	complain := func(field, code, format string, args ...any) {
		problems = append(problems, FieldError{Field: field, Code: code, Text: fmt.Sprintf(format, args...)})
	}
	r := &Rule{
		ID: record.Id, Name: record.GetString(fieldName),
		Audience: Audience(record.GetString(fieldWho)),
		Failures: record.GetString(fieldCounts) == "failures",
	}
	var err error
	if r.route, err = parseRoute(record.GetString(fieldRoute)); err != nil {
		complain(fieldRoute, "validation_invalid_route", "%s", sentence(err.Error()))
	}

	key := record.GetString(fieldKeyBy)
	if field, ok := strings.CutPrefix(key, keyBodyPrefix); ok {
		r.KeyBy, r.Field = KeyBody, field
		if !fieldPattern.MatchString(field) {
			complain(fieldKeyBy, "validation_invalid_key", "%q is not the name of a field: write body: and the name of one field, such as body:phone.", field)
		}
	} else {
		r.KeyBy = key
		switch key {
		case KeyIP, KeyUser, KeyGlobal, KeyAccount:
		default:
			complain(fieldKeyBy, "validation_invalid_key", "Write ip, user, global, account, or body: and the name of a field, such as body:phone.")
		}
	}
	if r.KeyBy == KeyUser && r.Audience == Guests {
		complain(fieldKeyBy, "validation_invalid_key", "A guest is nobody in particular: count guests by ip, or make this rule about signed_in.")
	}

	limit := record.GetInt(fieldLimit)
	switch most := maxLimit; {
	case limit < 1:
		complain(fieldLimit, "validation_invalid_limit", "Let at least 1 request through. To close a route to people, empty its API rule instead.")
	case r.Security() && limit > maxSecurityLimit:
		complain(fieldLimit, "validation_invalid_limit", "A rule by account, by a field of the body, or about failures remembers every request on disk: use at most %d.", maxSecurityLimit)
	case limit > most:
		complain(fieldLimit, "validation_invalid_limit", "Use at most %d.", most)
	}

	seconds := record.GetInt(fieldSeconds)
	most := maxWindow
	if r.Security() {
		most = maxSecurityWindow
	}
	if seconds < 1 || seconds > int(most/time.Second) {
		complain(fieldSeconds, "validation_invalid_window", "Use between 1 and %d seconds.", int(most/time.Second))
	}
	r.Window = Window{Limit: limit, Length: time.Duration(seconds) * time.Second}
	if len(problems) == 0 {
		r.prepare()
	}
	return r, problems
}

// sentence gives an error's text a capital letter and a full stop.
func sentence(text string) string {
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

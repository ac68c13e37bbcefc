package notifications

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/search"
	"github.com/pocketbase/pocketbase/tools/types"
)

// StoreKeyUsersCollection is the app.Store() key under which package hooks puts
// the id or name of the collection of people. Nothing there means PocketBase's
// own users collection.
const StoreKeyUsersCollection = "groundwork.usersCollection"

// defaultUsersCollection is the id that PocketBase gives its users collection.
const defaultUsersCollection = "_pb_users_auth_"

// UsersCollection returns the collection of the people who are notified.
func UsersCollection(app core.App) (*core.Collection, error) {
	name, _ := app.Store().Get(StoreKeyUsersCollection).(string)
	if name == "" {
		name = defaultUsersCollection
	}
	col, err := app.FindCachedCollectionByNameOrId(name)
	if err != nil {
		return nil, fmt.Errorf("find users collection %q: %w", name, err)
	}
	return col, nil
}

// Audience is who a notification goes to: a set of distinct users.
type Audience struct {
	Kind   AudienceKind
	Users  []string // ids, for AudienceUsers
	Topics []string // ids, for AudienceTopic
	Filter string   // a PocketBase filter over users, for AudienceFilter

	// Now is what @now and its relatives mean in Filter. All pages of one
	// notification use the same instant, so that nobody falls between two pages.
	// Zero means the current time.
	Now time.Time
}

// FieldError is a refusal of one field, in a sentence for the person who filled
// it in.
type FieldError struct {
	Field    string
	Code     string
	Sentence string
}

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Sentence }

// Count returns how many people the audience holds now.
func (a Audience) Count(app core.App) (int64, error) {
	query, table, err := a.query(app)
	if err != nil {
		return 0, err
	}
	var n int64
	count := "COUNT(*)"
	if a.Kind == AudienceFilter {
		count = "COUNT(DISTINCT [[" + table + ".id]])" // its joins may find somebody twice
	}
	if err := query.Select(count).Distinct(false).Row(&n); err != nil {
		return 0, a.readable(err)
	}
	return n, nil
}

// Page returns the ids of the next people in id order, after the id `after`
// (empty for the first page), at most limit of them. Fewer than limit means
// that there are no more.
func (a Audience) Page(app core.App, after string, limit int) ([]string, error) {
	return a.page(app, after, limit, "")
}

// page is [Audience.Page] of the people whose field holds something; empty means
// all.
func (a Audience) page(app core.App, after string, limit int, field string) ([]string, error) {
	query, table, err := a.query(app)
	if err != nil {
		return nil, err
	}
	if field != "" {
		query.AndWhere(dbx.NewExp("[[" + table + "." + field + "]] <> ''"))
	}
	if after != "" {
		query.AndWhere(dbx.NewExp("[["+table+".id]] > {:gwAfter}", dbx.Params{"gwAfter": after}))
	}
	ids := make([]string, 0, limit)
	err = query.Select("[[" + table + ".id]]").Distinct(a.Kind == AudienceFilter).
		OrderBy("[[" + table + ".id]] ASC").Limit(int64(limit)).Column(&ids)
	if err != nil {
		return nil, a.readable(err)
	}
	return ids, nil
}

// Check says whether the audience can be resolved: the first thing wrong with
// it is a [*FieldError].
func (a Audience) Check(app core.App) error {
	query, table, err := a.query(app)
	if err != nil {
		return err
	}
	var ids []string
	if err := query.Select("[[" + table + ".id]]").Limit(1).Column(&ids); err != nil {
		return a.readable(err)
	}
	return nil
}

func (a Audience) query(app core.App) (*dbx.SelectQuery, string, error) {
	users, err := UsersCollection(app)
	if err != nil {
		return nil, "", err
	}
	query := app.RecordQuery(users)
	id := "[[" + users.Name + ".id]]"

	switch a.Kind {
	case AudienceEveryone:
	case AudienceUsers:
		if len(a.Users) == 0 {
			return nil, "", &FieldError{"users", "required", "Choose at least one person, or another audience."}
		}
		// One JSON parameter instead of one per id: SQLite caps the number of
		// parameters in a statement.
		raw, err := types.JSONArray[string](a.Users).Value()
		if err != nil {
			return nil, "", fmt.Errorf("encode user ids: %w", err)
		}
		query.AndWhere(dbx.NewExp(id+" IN (SELECT value FROM json_each({:gwUsers}))", dbx.Params{"gwUsers": raw}))
	case AudienceTopic:
		if len(a.Topics) == 0 {
			return nil, "", &FieldError{"topics", "required", "Choose at least one topic, or another audience."}
		}
		subscriptions, err := app.FindCachedCollectionByNameOrId(CollectionSubscriptions)
		if err != nil {
			return nil, "", fmt.Errorf("find subscriptions collection: %w", err)
		}
		raw, err := types.JSONArray[string](a.Topics).Value()
		if err != nil {
			return nil, "", fmt.Errorf("encode topic ids: %w", err)
		}
		query.AndWhere(dbx.NewExp(id+" IN (SELECT [[user]] FROM {{"+subscriptions.Name+
			"}} WHERE [[topic]] IN (SELECT value FROM json_each({:gwTopics})))", dbx.Params{"gwTopics": raw}))
	case AudienceFilter:
		if strings.TrimSpace(a.Filter) == "" {
			return nil, "", &FieldError{"filter", "required", "Write a filter, such as verified = true, or choose another audience."}
		}
		filter, err := a.prepareFilter()
		if err != nil {
			return nil, "", err
		}
		// Hidden fields are allowed: resolved as a guest, emailVisibility would
		// silently leave people out.
		resolver := core.NewRecordFieldResolver(app, users, nil, true)
		expr, err := search.FilterData(filter).BuildExpr(resolver)
		if err != nil {
			return nil, "", a.readable(err)
		}
		query.AndWhere(expr)
		if err := resolver.UpdateQuery(query); err != nil {
			return nil, "", a.readable(err)
		}
	default:
		return nil, "", &FieldError{"audience", "required", "Choose who gets this: users, topic, filter or everyone."}
	}
	return query, users.Name, nil
}

// readable turns what PocketBase says about a filter into the owner's words.
func (a Audience) readable(err error) error {
	var field *FieldError
	if a.Kind != AudienceFilter || errors.As(err, &field) {
		return err
	}
	text := err.Error()
	if m := unknownFieldPattern.FindStringSubmatch(text); m != nil {
		return &FieldError{"filter", "unknown_field", fmt.Sprintf("The filter names %q, which is not a field of the users collection.", m[1])}
	}
	return &FieldError{"filter", "invalid_filter", "The filter cannot be read. Compare a field with a value, such as verified = true && created > '2026-01-01'."}
}

var unknownFieldPattern = regexp.MustCompile(`(?:unknown|non-filterable|failed to resolve) field "([^"]+)"`)

// prepareFilter refuses what an audience filter must not read, and replaces
// @now and its relatives by the instant a.Now.
func (a Audience) prepareFilter() (string, error) {
	now := a.Now
	if now.IsZero() {
		now = time.Now()
	}
	return rewriteIdentifiers(a.Filter, func(name string) (string, error) {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "@request") {
			return "", &FieldError{"filter", "forbidden_field", "A notification has no request: take " + name + " out of the filter."}
		}
		for _, part := range strings.FieldsFunc(lower, func(r rune) bool { return r == '.' || r == ':' }) {
			if part == "password" || part == "tokenkey" {
				return "", &FieldError{"filter", "forbidden_field", "A filter cannot read passwords or token keys: take " + name + " out of it."}
			}
		}
		if literal, ok := nowMacro(name, now.UTC()); ok {
			return literal, nil
		}
		return name, nil
	})
}

// nowMacro is the value of one of PocketBase's date macros at a given instant,
// written as a filter literal.
func nowMacro(name string, now time.Time) (string, bool) {
	date := func(t time.Time) (string, bool) {
		return "'" + t.UTC().Format(types.DefaultDateLayout) + "'", true
	}
	number := func(n int) (string, bool) { return strconv.Itoa(n), true }
	day := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }
	y, m, d := now.Date()
	switch name {
	case "@now":
		return date(now)
	case "@yesterday":
		return date(now.AddDate(0, 0, -1))
	case "@tomorrow":
		return date(now.AddDate(0, 0, 1))
	case "@todayStart":
		return date(day(y, m, d))
	case "@todayEnd":
		return date(day(y, m, d+1).Add(-time.Nanosecond))
	case "@monthStart":
		return date(day(y, m, 1))
	case "@monthEnd":
		return date(day(y, m+1, 1).Add(-time.Nanosecond))
	case "@yearStart":
		return date(day(y, 1, 1))
	case "@yearEnd":
		return date(day(y+1, 1, 1).Add(-time.Nanosecond))
	case "@second":
		return number(now.Second())
	case "@minute":
		return number(now.Minute())
	case "@hour":
		return number(now.Hour())
	case "@day":
		return number(d)
	case "@month":
		return number(int(m))
	case "@weekday":
		return number(int(now.Weekday()))
	case "@year":
		return number(y)
	}
	return "", false
}

// rewriteIdentifiers calls replace for each identifier of a filter that stands
// outside quotes and comments, and returns the filter with the replacements.
func rewriteIdentifiers(filter string, replace func(name string) (string, error)) (string, error) {
	var out strings.Builder
	isStart := func(c byte) bool {
		return c == '@' || c == '#' || c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	isPart := func(c byte) bool {
		return isStart(c) || c == '.' || c == ':' || c >= '0' && c <= '9'
	}
	for i := 0; i < len(filter); {
		c := filter[i]
		switch {
		case c == '\'' || c == '"':
			end := i + 1
			for end < len(filter) && filter[end] != c {
				if filter[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(filter))
			out.WriteString(filter[i:end])
			i = end
		case strings.HasPrefix(filter[i:], "//"):
			end := i
			for end < len(filter) && filter[end] != '\n' {
				end++
			}
			i = end // comments carry no meaning, and would hide what follows a replacement
		case isStart(c):
			end := i
			for end < len(filter) && isPart(filter[end]) {
				end++
			}
			replaced, err := replace(filter[i:end])
			if err != nil {
				return "", err
			}
			out.WriteString(replaced)
			i = end
		default:
			out.WriteByte(c)
			i++
		}
	}
	return out.String(), nil
}

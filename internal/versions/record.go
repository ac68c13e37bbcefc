package versions

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/pocketbase/pocketbase/core"
)

// Collection is the id of the app_versions collection.
const Collection = "gw_app_versions"

// Names of the collection's fields.
const (
	fieldPlatform    = "platform"
	fieldLatest      = "latest"
	fieldMinimum     = "minimum"
	fieldRecommended = "recommended"
	fieldStoreURL    = "storeUrl"
	fieldMessage     = "message"
	fieldEnabled     = "enabled"
)

// Load reads the rules that are switched on. A version that cannot be read (a
// raw SQL edit can store one) is left out and logged; the rest of its row holds,
// so that a slip in one field does not take a hard update back.
func Load(app core.App) (Table, error) {
	collection, err := app.FindCachedCollectionByNameOrId(Collection)
	if err != nil {
		return Table{}, fmt.Errorf("find collection %s: %w", Collection, err)
	}
	records, err := app.FindAllRecords(collection)
	if err != nil {
		return Table{}, fmt.Errorf("read collection %s: %w", collection.Name, err)
	}

	// The owner may add a platform to the field's list in the dashboard.
	var platforms []string
	if field, ok := collection.Fields.GetByName(fieldPlatform).(*core.SelectField); ok {
		platforms = append(platforms, field.Values...)
	}

	var rules []Rule
	for _, record := range records {
		platforms = append(platforms, record.GetString(fieldPlatform))
		if !record.GetBool(fieldEnabled) {
			continue
		}
		version := func(field string) Version {
			text := strings.TrimSpace(record.GetString(field))
			if text == "" {
				return Version{}
			}
			v, err := Parse(text)
			if err != nil {
				app.Logger().Warn("A version in app_versions is ignored.",
					slog.String("platform", record.GetString(fieldPlatform)),
					slog.String("field", field), slog.String("error", err.Error()))
			}
			return v
		}
		rules = append(rules, Rule{
			Platform:    record.GetString(fieldPlatform),
			Latest:      version(fieldLatest),
			Minimum:     version(fieldMinimum),
			Recommended: version(fieldRecommended),
			StoreURL:    record.GetString(fieldStoreURL),
			Message:     record.GetString(fieldMessage),
		})
	}
	return NewTable(platforms, rules), nil
}

// FieldError is one thing that is wrong with a record of the collection.
type FieldError struct {
	Field string
	Code  string // stable, for programs
	Text  string // one sentence
}

// CheckRecord tidies the record (spaces around what was typed) and returns what
// is wrong with it, at most one error per field.
func CheckRecord(record *core.Record) []FieldError {
	var problems []FieldError
	complain := func(field, code, format string, args ...any) {
		for _, p := range problems {
			if p.Field == field {
				return
			}
		}
		problems = append(problems, FieldError{Field: field, Code: code, Text: fmt.Sprintf(format, args...)})
	}

	for _, field := range []string{fieldLatest, fieldMinimum, fieldRecommended, fieldStoreURL} {
		record.Set(field, strings.TrimSpace(record.GetString(field)))
	}

	version := func(field string) Version {
		text := record.GetString(field)
		if text == "" {
			return Version{}
		}
		v, err := Parse(text)
		if err != nil {
			complain(field, "validation_invalid_version", "%s", sentence(err.Error()))
		}
		return v
	}
	minimum, recommended, latest := version(fieldMinimum), version(fieldRecommended), version(fieldLatest)

	// Asking for a version that cannot be had would lock everybody out.
	if !minimum.IsZero() && !recommended.IsZero() && recommended.Before(minimum) {
		complain(fieldRecommended, "validation_version_order",
			"Recommended (%s) is below minimum (%s): raise recommended, or lower minimum.", recommended, minimum)
	}
	if !minimum.IsZero() && !latest.IsZero() && latest.Before(minimum) {
		complain(fieldMinimum, "validation_version_order",
			"Minimum (%s) is above latest (%s): nobody could install it; raise latest, or lower minimum.", minimum, latest)
	}
	if !recommended.IsZero() && !latest.IsZero() && latest.Before(recommended) {
		complain(fieldRecommended, "validation_version_order",
			"Recommended (%s) is above latest (%s): nobody could install it; raise latest, or lower recommended.", recommended, latest)
	}

	if err := checkStoreURL(record.GetString(fieldStoreURL)); err != nil {
		complain(fieldStoreURL, "validation_invalid_store_url", "%s", sentence(err.Error()))
	}
	if strings.ContainsRune(record.GetString(fieldMessage), 0) {
		complain(fieldMessage, "validation_invalid_message", "The message contains a character that cannot be shown (code zero).")
	}
	return problems
}

// storeSchemes are the schemes that open a web page or a store on a device.
// Anything else, javascript: first of all, has no business in an update button.
var storeSchemes = []string{"https", "http", "itms-apps", "itms-appss", "itms", "itmss", "itms-beta", "market", "ms-windows-store", "macappstore", "macappstores", "appmarket", "samsungapps", "amzn"}

func checkStoreURL(raw string) error {
	if raw == "" {
		return nil
	}
	const help = "write an address such as https://apps.apple.com/app/id123, itms-apps://… or market://details?id=…"
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" {
		return errors.New("the store address cannot be read; " + help)
	}
	known := false
	for _, scheme := range storeSchemes {
		known = known || strings.EqualFold(u.Scheme, scheme)
	}
	if !known {
		return fmt.Errorf("the store address starts with %s, which is not a web or store address; %s", quote(u.Scheme+":"), help)
	}
	if (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() == "" {
		return errors.New("the store address names no host; " + help)
	}
	return nil
}

// sentence gives an error's text a capital letter and a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

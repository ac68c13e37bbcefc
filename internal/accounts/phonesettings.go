package accounts

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// CollectionPhoneSignIn is the id of the collection phone_sign_in.
const CollectionPhoneSignIn = "gw_phone_sign_in"

// Values of phone_sign_in where its row, or the number in it, is missing.
const (
	DefaultMaxPerHour          = 500
	DefaultMaxPerPrefixPerHour = 20
)

const (
	maxTestNumbers = 20

	// A test code is fixed, so that it has to be longer than what somebody could try
	// out in a week of five tries an hour.
	minTestCode, maxTestCode = 6, 12
)

// PhoneSettings are those of one auth collection.
type PhoneSettings struct {
	Enabled bool
	SignUp  bool

	// Countries is empty when the owner left the choice to us.
	Countries []string

	MaxPerHour          int
	MaxPerPrefixPerHour int

	// TestNumbers are the fixed codes by number.
	TestNumbers map[string]string
}

// PhoneSettingsOf returns the settings of a collection by its name. One without a
// row has the defaults.
func PhoneSettingsOf(all map[string]PhoneSettings, collection *core.Collection) PhoneSettings {
	if s, ok := all[collection.Name]; ok {
		return s
	}
	return PhoneSettings{Enabled: true, MaxPerHour: DefaultMaxPerHour, MaxPerPrefixPerHour: DefaultMaxPerPrefixPerHour}
}

// LoadPhoneSettings reads phone_sign_in, by the name of the auth collection.
func LoadPhoneSettings(app core.App) (map[string]PhoneSettings, error) {
	records, err := app.FindAllRecords(CollectionPhoneSignIn)
	if err != nil {
		return nil, fmt.Errorf("read phone_sign_in: %w", err)
	}
	all := make(map[string]PhoneSettings, len(records))
	for _, r := range records {
		s := PhoneSettings{Enabled: r.GetBool("enabled"), SignUp: r.GetBool("phoneSignUp"),
			MaxPerHour: r.GetInt("maxPerHour"), MaxPerPrefixPerHour: r.GetInt("maxPerPrefixPerHour"), TestNumbers: map[string]string{}}
		if s.MaxPerHour <= 0 {
			s.MaxPerHour = DefaultMaxPerHour
		}
		if s.MaxPerPrefixPerHour <= 0 {
			s.MaxPerPrefixPerHour = DefaultMaxPerPrefixPerHour
		}
		tests, err := readTestNumbers(r)
		if err == nil {
			s.Countries, err = readCountries(r)
		}
		if err != nil {
			// Only a raw SQL edit can store this. Nobody can sign in rather than everybody.
			app.Logger().Warn("A row of phone_sign_in cannot be read, so that phone sign-in is off.",
				slog.String("collection", r.GetString("collection")), slog.String("error", err.Error()))
			s.Enabled = false
		}
		for _, t := range tests {
			s.TestNumbers[t.Phone] = t.Code
		}
		all[r.GetString("collection")] = s
	}
	return all, nil
}

// PhoneProblem is one thing that is wrong with a row of phone_sign_in.
type PhoneProblem struct {
	Field string
	Code  string // stable, for programs
	Text  string // one sentence, without its full stop
}

// CheckPhoneSettings brings a row of phone_sign_in into the one form that the rest
// relies on and returns what is wrong with it. collection is the one that the row
// names, nil when there is none.
func CheckPhoneSettings(r *core.Record, collection *core.Collection) []PhoneProblem {
	var problems []PhoneProblem
	complain := func(field, code, format string, args ...any) {
		problems = append(problems, PhoneProblem{field, code, fmt.Sprintf(format, args...)})
	}
	switch {
	case collection == nil:
		complain("collection", "not_found", "there is no collection with this name")
	case !collection.IsAuth():
		complain("collection", "not_auth", "nobody signs in to %s: name an auth collection, such as users", collection.Name)
	case collection.Name == core.CollectionNameSuperusers:
		complain("collection", "superusers", "superusers do not sign in by SMS: whoever gets hold of a phone number would have everything")
	default:
		r.Set("collection", collection.Name) // an id may have been given
	}

	countries, err := readCountries(r)
	if err != nil {
		complain("countries", "invalid_countries", "%s", err)
	} else {
		r.Set("countries", countries)
	}
	tests, err := readTestNumbers(r)
	if err != nil {
		complain("testNumbers", "invalid_test_numbers", "%s", err)
		return problems
	}
	r.Set("testNumbers", tests)
	for _, t := range tests {
		// Otherwise the answer for it would tell that it is one.
		if len(countries) > 0 && !MayText(t.Phone, countries) {
			complain("testNumbers", "country", "%s is a number of %s, which is not in countries: add it there", t.Phone, PhoneCountry(t.Phone))
			break
		}
	}
	return problems
}

func isBlank(raw string) bool {
	return raw == "" || raw == "null" || raw == `""` || raw == "[]" || raw == "{}"
}

// readCountries takes a JSON list, or what a person would write.
func readCountries(r *core.Record) ([]string, error) {
	raw := strings.TrimSpace(r.GetString("countries"))
	countries := []string{}
	if isBlank(raw) {
		return countries, nil
	}
	var given []string
	if err := json.Unmarshal([]byte(raw), &given); err != nil {
		var line string
		if json.Unmarshal([]byte(raw), &line) != nil {
			return nil, errors.New(`this is a list of country codes; write it like ["DE", "AT"]`)
		}
		given = strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ';' || r == ' ' || r == '\n' || r == '\t' })
	}
	for _, code := range given {
		code = strings.ToUpper(strings.TrimSpace(code))
		if !isCountry(code) {
			return nil, fmt.Errorf("%q is not a country code of two letters, such as DE or US", code)
		}
		if !slices.Contains(countries, code) {
			countries = append(countries, code)
		}
	}
	return countries, nil
}

type testNumber struct {
	Phone string `json:"phone"`
	Code  string `json:"code"`
}

func readTestNumbers(r *core.Record) ([]testNumber, error) {
	raw := strings.TrimSpace(r.GetString("testNumbers"))
	tests := []testNumber{}
	if isBlank(raw) {
		return tests, nil
	}
	if err := json.Unmarshal([]byte(raw), &tests); err != nil {
		return nil, errors.New(`this is a list of numbers and codes; write it like [{"phone": "+12025550100", "code": "123456"}], the codes in quotation marks`)
	}
	if len(tests) > maxTestNumbers {
		return nil, fmt.Errorf("these are %d numbers, and there may be %d", len(tests), maxTestNumbers)
	}
	seen := map[string]bool{}
	for i, t := range tests {
		phone, err := notifications.NormalizePhone(t.Phone)
		if err != nil {
			return nil, fmt.Errorf("number %d of the list: %w", i+1, err)
		}
		if len(t.Code) < minTestCode || len(t.Code) > maxTestCode || strings.Trim(t.Code, "0123456789") != "" {
			return nil, fmt.Errorf("the code of number %d has to have %d to %d digits", i+1, minTestCode, maxTestCode)
		}
		if seen[phone] {
			return nil, fmt.Errorf("the number %s is in the list twice", phone)
		}
		seen[phone] = true
		tests[i].Phone = phone
	}
	return tests, nil
}

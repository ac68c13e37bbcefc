package versions

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLength is the longest version that is read, in bytes. Semantic Versioning
// sets no limit and calls 255 characters overkill.
const MaxLength = 256

// Version is the version of an app: one to four numbers, and optionally a
// pre-release and a build number. The zero value means "none"; it is not a
// version and comes before all of them.
type Version struct {
	raw string

	// numbers hold decimal digits without leading zeros, "" for a part that was
	// not written. They stay text, so that no length of number overflows.
	numbers [4]string

	pre   string
	build string
}

// SyntaxError says what is wrong with a version. Its text is one sentence that
// can be shown to whoever wrote the version.
type SyntaxError struct {
	Input   string // as it was written
	Problem string // such as: "01" starts with a zero; write 1
}

func (e *SyntaxError) Error() string {
	return "the version " + quote(e.Input) + " cannot be read: " + e.Problem
}

// Parse reads a version.
//
// It takes every version of [Semantic Versioning 2.0.0], and beyond them:
//
//   - one, two and four numbers: 7 is 7.0.0, 1.2 is 1.2.0, and 1.2.3.4 comes
//     after 1.2.3 and before 1.2.4;
//   - a leading "v" (or "V");
//   - a build number in brackets, as the stores display it: "1.2.3 (45)" is
//     1.2.3+45.
//
// As in Semantic Versioning, numbers have no leading zeros and may have any
// number of digits. The error is a [*SyntaxError].
//
// [Semantic Versioning 2.0.0]: https://semver.org/spec/v2.0.0.html
func Parse(s string) (Version, error) {
	v := Version{raw: s}
	fail := func(format string, args ...any) (Version, error) {
		return Version{}, &SyntaxError{Input: s, Problem: fmt.Sprintf(format, args...)}
	}

	if s == "" {
		return fail("it is empty; write numbers with dots, such as 1.2.3")
	}
	if len(s) > MaxLength {
		return fail("it is longer than %d characters", MaxLength)
	}

	rest := s
	if rest[0] == 'v' || rest[0] == 'V' {
		rest = rest[1:]
	}

	hasBuild := false
	if i := strings.IndexByte(rest, '+'); i >= 0 {
		rest, v.build, hasBuild = rest[:i], rest[i+1:], true
	} else if i := strings.Index(rest, " ("); i >= 0 && strings.HasSuffix(rest, ")") {
		rest, v.build, hasBuild = rest[:i], rest[i+2:len(rest)-1], true
	}
	if hasBuild {
		if problem := checkIdentifiers(v.build, "build number", false); problem != "" {
			return fail("%s", problem)
		}
	}

	if i := strings.IndexByte(rest, '-'); i >= 0 {
		rest, v.pre = rest[:i], rest[i+1:]
		if problem := checkIdentifiers(v.pre, "pre-release", true); problem != "" {
			return fail("%s", problem)
		}
	}

	for i := 0; ; i++ {
		if i == len(v.numbers) {
			return fail("it has more than four numbers")
		}
		number, more, found := strings.Cut(rest, ".")
		switch {
		case number == "":
			return fail("a number is missing; write numbers with dots, such as 1.2.3")
		case !isDigits(number):
			return fail("%s is not a number; write numbers with dots, such as 1.2.3", quote(number))
		case len(number) > 1 && number[0] == '0':
			return fail("%s starts with a zero; write %s", quote(number), withoutLeadingZeros(number))
		}
		v.numbers[i] = number
		if !found {
			return v, nil
		}
		rest = more
	}
}

// String is the version as it was written.
func (v Version) String() string { return v.raw }

// IsZero reports whether v is no version at all.
func (v Version) IsZero() bool { return v.raw == "" }

// Build is what stands after "+" or in brackets; "" when there is nothing.
func (v Version) Build() string { return v.build }

// Compare is -1 when v comes before w, 1 when it comes after w, and 0 when
// neither does.
//
// The order is that of Semantic Versioning 2.0.0: numbers by value, a
// pre-release before its release, pre-releases identifier by identifier. The
// fourth number, where there is one, counts after the third; a missing number
// counts as zero. **The build number does not count**: 1.2.3+45 and 1.2.3+44
// are equal. An app whose builds must be told apart writes the build as the
// fourth number.
func (v Version) Compare(w Version) int {
	if v.IsZero() || w.IsZero() {
		switch {
		case v.IsZero() && w.IsZero():
			return 0
		case v.IsZero():
			return -1
		default:
			return 1
		}
	}
	for i := range v.numbers {
		if c := compareNumbers(v.numbers[i], w.numbers[i]); c != 0 {
			return c
		}
	}
	return comparePre(v.pre, w.pre)
}

// Before reports whether v comes before w.
func (v Version) Before(w Version) bool { return v.Compare(w) < 0 }

// compareNumbers compares decimal digits without leading zeros.
func compareNumbers(a, b string) int {
	if a == "" {
		a = "0"
	}
	if b == "" {
		b = "0"
	}
	if len(a) != len(b) {
		if len(a) < len(b) {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

func comparePre(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "": // a release comes after its pre-releases
		return 1
	case b == "":
		return -1
	}
	for {
		x, restA, moreA := strings.Cut(a, ".")
		y, restB, moreB := strings.Cut(b, ".")
		if c := compareIdentifiers(x, y); c != 0 {
			return c
		}
		switch {
		case !moreA && !moreB:
			return 0
		case !moreA: // fewer identifiers come first when all before are equal
			return -1
		case !moreB:
			return 1
		}
		a, b = restA, restB
	}
}

func compareIdentifiers(a, b string) int {
	numericA, numericB := isDigits(a), isDigits(b)
	switch {
	case numericA && numericB:
		return compareNumbers(a, b)
	case numericA: // numbers come before words
		return -1
	case numericB:
		return 1
	default:
		return strings.Compare(a, b)
	}
}

// checkIdentifiers is "" or what is wrong with the identifiers of a pre-release
// or build number.
func checkIdentifiers(s, what string, numbersStrict bool) string {
	for {
		identifier, rest, more := strings.Cut(s, ".")
		if identifier == "" {
			return "its " + what + " is empty or has an empty part"
		}
		for _, r := range identifier {
			if !isIdentifierRune(r) {
				return "its " + what + " may hold only letters a to z, digits, hyphens and dots"
			}
		}
		if numbersStrict && len(identifier) > 1 && identifier[0] == '0' && isDigits(identifier) {
			return quote(identifier) + " in its " + what + " starts with a zero; write " + withoutLeadingZeros(identifier)
		}
		if !more {
			return ""
		}
		s = rest
	}
}

func isIdentifierRune(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-'
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func withoutLeadingZeros(digits string) string {
	trimmed := strings.TrimLeft(digits, "0")
	if trimmed == "" {
		return "0"
	}
	return trimmed
}

// quote is s in quotes, cut to a length that fits into a sentence, with
// everything unprintable escaped.
func quote(s string) string {
	const most = 40
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return fmt.Sprintf("%q", s)
}

package versions

import (
	"math/rand/v2"
	"strings"
	"testing"

	masterminds "github.com/Masterminds/semver/v3"
	"github.com/stretchr/testify/require"
	xmod "golang.org/x/mod/semver"
)

// agreeWithPeers fails the test where one of the two other implementations
// reads both versions, and orders them differently. It reports which of them
// could be asked.
func agreeWithPeers(t *testing.T, a, b string) (askedXmod, askedMasterminds bool) {
	t.Helper()
	if len(a) > MaxLength || len(b) > MaxLength {
		return false, false // our own limit
	}
	v, errV := Parse(a)
	w, errW := Parse(b)

	// Both peers are asked without the "v": x/mod wants it, and of Masterminds
	// only the strict parser follows the specification (the other one takes leading zeros).
	for s, err := range map[string]error{a: errV, b: errW} {
		if xmod.IsValid("v" + s) {
			require.NoError(t, err, "x/mod reads %q", s)
		}
		if _, theirs := masterminds.StrictNewVersion(s); theirs == nil {
			require.NoError(t, err, "Masterminds reads %q", s)
		}
		// The other way round: three plain numbers are read by both or not at all.
		if err == nil && s[0] >= '0' && s[0] <= '9' && !strings.Contains(s, " ") && strings.Count(strings.FieldsFunc(s, func(r rune) bool { return r == '-' || r == '+' })[0], ".") == 2 {
			require.True(t, xmod.IsValid("v"+s), "x/mod refuses %q", s)
		}
	}
	if errV != nil || errW != nil {
		return false, false
	}

	require.Equal(t, -v.Compare(w), w.Compare(v), "%s against %s is not symmetric", a, b)
	if xmod.IsValid("v"+a) && xmod.IsValid("v"+b) {
		askedXmod = true
		require.Equal(t, xmod.Compare("v"+a, "v"+b), v.Compare(w), "x/mod: %s against %s", a, b)
	}
	x, errX := masterminds.StrictNewVersion(a)
	y, errY := masterminds.StrictNewVersion(b)
	if errX == nil && errY == nil && !hugeIdentifier(a) && !hugeIdentifier(b) {
		askedMasterminds = true
		require.Equal(t, x.Compare(y), v.Compare(w), "Masterminds: %s against %s", a, b)
	}
	return askedXmod, askedMasterminds
}

// hugeIdentifier reports a pre-release number that Masterminds cannot hold in 64
// bits and then compares as a word, against the specification.
func hugeIdentifier(s string) bool {
	_, pre, _ := strings.Cut(s, "-")
	for _, identifier := range strings.FieldsFunc(pre, func(r rune) bool { return r == '.' || r == '+' }) {
		if isDigits(identifier) && len(identifier) > 18 {
			return true
		}
	}
	return false
}

func FuzzCompareAgainstPeers(f *testing.F) {
	for i := range ordered {
		for _, a := range ordered[i] {
			f.Add(a, ordered[(i+1)%len(ordered)][0])
		}
	}
	for i, s := range semverValid {
		f.Add(s, semverValid[(i+1)%len(semverValid)])
	}
	f.Fuzz(func(t *testing.T, a, b string) { agreeWithPeers(t, a, b) })
}

// FuzzParse: nothing that strangers send makes the parser panic, answer at
// length, or accept what it cannot order against itself.
func FuzzParse(f *testing.F) {
	for _, s := range semverValid {
		f.Add(s)
	}
	f.Add("1.2.3 (45)")
	f.Add("\x00")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := Parse(s)
		if err != nil {
			require.Less(t, len(err.Error()), 500)
			return
		}
		require.Equal(t, s, v.String())
		require.Equal(t, 0, v.Compare(v))
		again, err := Parse(v.String())
		require.NoError(t, err)
		require.Equal(t, v, again)
	})
}

// randomVersion is valid more often than not, and close to others of its kind.
func randomVersion(r *rand.Rand) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	number := func() string {
		if r.IntN(20) == 0 {
			return pick("18446744073709551615", "18446744073709551616", "99999999999999999999", "01")
		}
		return pick("0", "1", "2", "9", "10", "11", "100")
	}
	var b strings.Builder
	if r.IntN(20) == 0 {
		b.WriteString("v")
	}
	b.WriteString(number())
	for range []int{2, 2, 2, 2, 2, 2, 1, 0, 3, 4}[r.IntN(10)] {
		b.WriteString("." + number())
	}
	identifiers := func() string {
		var parts []string
		for range 1 + r.IntN(3) {
			if r.IntN(20) == 0 {
				parts = append(parts, pick("99999999999999999999", "", "00", "ü"))
				continue
			}
			parts = append(parts, pick("0", "1", "2", "10", "9", "a", "b", "A", "alpha", "beta", "rc", "-", "a-b", "0a", "1a"))
		}
		return strings.Join(parts, ".")
	}
	if r.IntN(2) == 0 {
		b.WriteString("-" + identifiers())
	}
	if r.IntN(3) == 0 {
		b.WriteString("+" + identifiers())
	}
	return b.String()
}

func TestCompareAgainstPeersOnRandomPairs(t *testing.T) {
	t.Parallel()
	const pairs = 300_000
	r := rand.New(rand.NewPCG(1, 2)) // the same pairs every time
	xmodAsked, mastermindsAsked, equal := 0, 0, 0
	for range pairs {
		a, b := randomVersion(r), randomVersion(r)
		if r.IntN(2) == 0 { // a relative: the order is decided by what differs late
			at := r.IntN(len(a))
			b = a[:at] + []string{"", "0", "1", ".", "-", "a", "+5"}[r.IntN(7)] + a[min(at+r.IntN(2), len(a)):]
		}
		x, m := agreeWithPeers(t, a, b)
		if x {
			xmodAsked++
			if xmod.Compare("v"+a, "v"+b) == 0 {
				equal++
			}
		}
		if m {
			mastermindsAsked++
		}
	}
	t.Logf("of %d pairs, x/mod ordered %d (%d equal), Masterminds %d", pairs, xmodAsked, equal, mastermindsAsked)
	require.Greater(t, xmodAsked, pairs/10)
	require.Greater(t, mastermindsAsked, pairs/10)
	require.Greater(t, equal, pairs/100)
}

func TestCompareIsTransitive(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	var valid []Version
	for len(valid) < 300 {
		if v, err := Parse(randomVersion(r)); err == nil {
			valid = append(valid, v)
		}
	}
	for range 300_000 {
		a, b, c := valid[r.IntN(len(valid))], valid[r.IntN(len(valid))], valid[r.IntN(len(valid))]
		if a.Compare(b) <= 0 && b.Compare(c) <= 0 {
			require.LessOrEqual(t, a.Compare(c), 0, "%s, %s, %s", a, b, c)
		}
	}
}

package versions

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func mustParse(t testing.TB, s string) Version {
	t.Helper()
	v, err := Parse(s)
	require.NoError(t, err)
	return v
}

// Each group holds equal versions; every group comes before the next one.
var ordered = [][]string{
	{"0.0.0-0"},
	{"0", "0.0", "0.0.0", "0.0.0.0", "v0", "0+1"},
	{"0.0.0.1"},
	{"0.0.1"},
	// Semantic Versioning 2.0.0, section 11.
	{"1.0.0-alpha", "1-alpha", "1.0-alpha", "1.0.0-alpha+45"},
	{"1.0.0-alpha.1"},
	{"1.0.0-alpha.beta"},
	{"1.0.0-beta"},
	{"1.0.0-beta.2"},
	{"1.0.0-beta.11"},
	{"1.0.0-rc.1"},
	{"1.0.0", "1", "1.0", "v1.0.0", "V1", "1.0.0.0", "1.0.0+45", "1.0.0+44", "1.0.0 (45)", "1.0.0+exp.sha.5114f85", "1.0.0+001"},
	{"1.2.3-999999999999999999999999"},
	{"1.2.3-9999999999999999999999990"},
	{"1.2.3-A"}, // ASCII order: upper case first
	{"1.2.3-a"},
	{"1.2.3-a.b"},
	{"1.2.3-a-b"},
	{"1.2.3.0-rc.1", "1.2.3-rc.1"},
	{"1.2.3", "1.2.3.0"},
	{"1.2.3.4-rc.1"},
	{"1.2.3.4", "1.2.3.4+5"},
	{"1.2.3.10"},
	{"1.2.4-0"},
	{"1.2.4"},
	{"1.10.0", "1.10"},
	{"2.0.0", "2"},
	{"2.1.0"},
	{"2.1.1"},
	{"18446744073709551615.0.0"},
	{"18446744073709551616.0.0"}, // beyond 64 bits
	{"100000000000000000000000000000000000000.0.0"},
}

func TestCompareOrder(t *testing.T) {
	t.Parallel()
	for i, group := range ordered {
		for _, a := range group {
			for j, other := range ordered {
				want := 0
				if i < j {
					want = -1
				} else if i > j {
					want = 1
				}
				for _, b := range other {
					require.Equal(t, want, mustParse(t, a).Compare(mustParse(t, b)), "%s against %s", a, b)
					require.Equal(t, want < 0, mustParse(t, a).Before(mustParse(t, b)))
				}
			}
		}
	}
}

func TestCompareZeroVersionComesFirst(t *testing.T) {
	t.Parallel()
	require.Equal(t, 1, mustParse(t, "0.0.0-0").Compare(Version{}))
	require.Equal(t, -1, Version{}.Compare(mustParse(t, "0.0.0-0")))
	require.Equal(t, 0, Version{}.Compare(Version{}))
	require.True(t, Version{}.IsZero())
	require.False(t, mustParse(t, "0").IsZero())
}

// The valid list that semver.org links to from its regular expression.
var semverValid = []string{
	"0.0.4", "1.2.3", "10.20.30", "1.1.2-prerelease+meta", "1.1.2+meta", "1.1.2+meta-valid", "1.0.0-alpha",
	"1.0.0-beta", "1.0.0-alpha.beta", "1.0.0-alpha.beta.1", "1.0.0-alpha.1", "1.0.0-alpha0.valid", "1.0.0-alpha.0valid",
	"1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay", "1.0.0-rc.1+build.1", "2.0.0-rc.1+build.123", "1.2.3-beta",
	"10.2.3-DEV-SNAPSHOT", "1.2.3-SNAPSHOT-123", "1.0.0", "2.0.0", "1.1.7", "2.0.0+build.1848", "2.0.1-alpha.1227",
	"1.0.0-alpha+beta", "1.2.3----RC-SNAPSHOT.12.9.1--.12+788", "1.2.3----R-S.12.9.1--.12+meta", "1.2.3----RC-SNAPSHOT.12.9.1--.12",
	"1.0.0+0.build.1-rc.10000aaa-kk-0.1", "99999999999999999999999.999999999999999999.99999999999999999", "1.0.0-0A.is.legal",
}

func TestParseTakesEverySemanticVersion(t *testing.T) {
	t.Parallel()
	for _, s := range semverValid {
		require.Equal(t, s, mustParse(t, s).String())
	}
}

func TestParseBuild(t *testing.T) {
	t.Parallel()
	require.Equal(t, "45", mustParse(t, "1.2.3+45").Build())
	require.Equal(t, "45", mustParse(t, "1.2.3 (45)").Build())
	require.Equal(t, "a-b.01", mustParse(t, "1.2.3-rc-1+a-b.01").Build())
	require.Empty(t, mustParse(t, "1.2.3").Build())
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for s, problem := range map[string]string{
		"":                          "it is empty",
		"v":                         "a number is missing",
		"vv1":                       `"v1" is not a number`,
		"alpha":                     `"alpha" is not a number`,
		".1":                        "a number is missing",
		"1.":                        "a number is missing",
		"1..3":                      "a number is missing",
		"-1.2.3":                    "a number is missing",
		"+1":                        "a number is missing",
		"1.2.3.4.5":                 "it has more than four numbers",
		"1.2.3.DEV":                 `"DEV" is not a number`,
		"1.2.x":                     `"x" is not a number`,
		"1,2":                       `"1,2" is not a number`,
		"01.1.1":                    `"01" starts with a zero; write 1`,
		"1.000":                     `"000" starts with a zero; write 0`,
		"1.2.3-":                    "its pre-release is empty or has an empty part",
		"1.2.3-a..b":                "its pre-release is empty or has an empty part",
		"1.2.3-01":                  `"01" in its pre-release starts with a zero; write 1`,
		"1.2.3-a_b":                 "its pre-release may hold only",
		"1.2.3+":                    "its build number is empty or has an empty part",
		"1.2.3+a+b":                 "its build number may hold only",
		"1.2.3 ()":                  "its build number is empty or has an empty part",
		"1.2.3 (4 5)":               "its build number may hold only",
		"1.2.3(45)":                 `"3(45)" is not a number`,
		"1.2.3 beta":                `"3 beta" is not a number`,
		" 1.2.3":                    `" 1" is not a number`,
		"1.2.3\n":                   "is not a number",
		"1.2.\x00":                  `"\x00" is not a number`,
		"١.٢":                       "is not a number", // digits, but not those of a version
		"1.2.3-\xff":                "its pre-release may hold only",
		strings.Repeat("9", 257):    "it is longer than 256 characters",
		strings.Repeat("1.", 10000): "it is longer than 256 characters",
	} {
		v, err := Parse(s)
		require.Error(t, err, "%q", s)
		require.Zero(t, v)
		var syntax *SyntaxError
		require.ErrorAs(t, err, &syntax)
		require.Equal(t, s, syntax.Input)
		require.Contains(t, err.Error(), problem, "%q", s)
		require.Less(t, len(err.Error()), 300, "%q", s)
	}
	require.Len(t, mustParse(t, strings.Repeat("9", 256)).String(), 256)
}

package notifications

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/osteele/liquid/expressions"
	"github.com/osteele/liquid/filters"
	"github.com/osteele/liquid/parser"
	"github.com/osteele/liquid/render"
	"github.com/osteele/liquid/tags"
)

// The Liquid library trusts its templates: a loop goes on after its caller has
// given up, a variable that is appended to itself forty times fills the memory,
// and include reads files of this machine. This file puts limits under it.

const (
	// maxKept is what the variables that a template sets may hold together.
	maxKept = 8 << 20
	// budgetKey is no name that a template can write.
	budgetKey = "@budget"
	// captureTag and tickTag stand in for capture, which the library does not let
	// one redefine, and at the beginning of each loop's body.
	captureTag = "groundwork_capture"
	tickTag    = "groundwork_tick"
)

var (
	errTooLong = errors.New("too long")
	errTooSlow = errors.New("too slow")
)

// budget is what one part of a message may use up for one person. It belongs to
// one goroutine.
type budget struct {
	deadline time.Time
	kept     map[string]int // bytes by variable
	total    int
	broken   error // errTooLong or errTooSlow once a limit was passed
}

func newBudget() *budget {
	return &budget{deadline: time.Now().Add(maxRenderTime)}
}

func (b *budget) fail(err error) error {
	if b.broken == nil {
		b.broken = err
	}
	return b.broken
}

// tick ends what takes too long.
func (b *budget) tick() error {
	if b.broken != nil || time.Now().After(b.deadline) {
		return b.fail(errTooSlow)
	}
	return nil
}

// keep takes note of a variable's new value.
func (b *budget) keep(name string, value any) error {
	size := sizeOf(value)
	if b.kept == nil {
		b.kept = map[string]int{}
	}
	b.total += size - b.kept[name]
	b.kept[name] = size
	if b.total > maxKept {
		return b.fail(errTooLong)
	}
	return nil
}

func budgetOf(ctx render.Context) *budget {
	if b, ok := ctx.Get(budgetKey).(*budget); ok {
		return b
	}
	return newBudget()
}

// limitedBuffer takes what a part or a capture puts out.
type limitedBuffer struct {
	bytes.Buffer
	budget *budget
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if err := b.budget.tick(); err != nil {
		return 0, err
	}
	if b.Len()+len(p) > maxRendered {
		return 0, b.budget.fail(errTooLong)
	}
	return b.Buffer.Write(p)
}

// liquidConfig is the template language. It refuses variables that do not
// exist: a blank in a broadcast is seen by everybody, an error by its author.
//
// liquidFilters are the names of its filters: the library itself looks for them
// when a text is rendered and not before.
var liquidConfig, liquidFilters = func() (render.Config, map[string]bool) {
	cfg, names := render.NewConfig(), map[string]bool{}
	cfg.StrictVariables = true
	filters.AddStandardFilters(limitedFilters{&cfg, names})
	addOwnFilters(limitedFilters{&cfg, names})
	tags.AddStandardTags(cfg)
	cfg.AddTag("include", func(string) (func(io.Writer, render.Context) error, error) {
		return nil, errors.New("templates cannot include files")
	})
	cfg.AddTag("assign", limitedAssign)
	cfg.AddBlock(captureTag).Compiler(limitedCapture)
	cfg.AddTag(tickTag, func(string) (func(io.Writer, render.Context) error, error) {
		return func(_ io.Writer, ctx render.Context) error { return budgetOf(ctx).tick() }, nil
	})
	return cfg, names
}()

var tickNode = func() render.Node {
	root, err := liquidConfig.Compile("{% "+tickTag+" %}", parser.SourceLoc{})
	if err != nil {
		panic(err)
	}
	return root
}()

var (
	rawPattern      = regexp.MustCompile(`\{%-?\s*raw\b`)
	unclosedPattern = regexp.MustCompile(`\{[{%][^\n]{0,20}`)

	rawOrCapture = regexp.MustCompile(`(?s)\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}|\{%-?\s*(?:end)?capture\b`)
	rangePattern = regexp.MustCompile(`\(\s*([^()]*?)\s*\.\.\s*([^()]*?)\s*\)`)
	loopPattern  = regexp.MustCompile(`^\{%-?\s*(?:for|tablerow)\b[^|]*$`)
)

// parseLiquid reads one field of a text.
func parseLiquid(field, source string) (root render.Node, wrong *TemplateError) {
	defer func() {
		// The library panics at some nonsense, such as a number without end.
		if r := recover(); r != nil {
			wrong = &TemplateError{Field: field, Sentence: fmt.Sprintf("The template cannot be read: %v.", r)}
		}
	}()
	if line, sentence := checkRanges(source); sentence != "" {
		return nil, &TemplateError{Field: field, Line: line, Sentence: sentence}
	}
	// Liquid takes an unclosed brace as text: everybody would read it.
	outside := liquidTag.ReplaceAllStringFunc(source, func(tag string) string { return strings.Repeat("\n", strings.Count(tag, "\n")) })
	if open := unclosedPattern.FindStringIndex(outside); open != nil && !rawPattern.MatchString(source) {
		return nil, &TemplateError{Field: field, Line: lineAt(outside, open[0]),
			Sentence: fmt.Sprintf("%q is opened and never closed: write it as {{ user.name }}.", outside[open[0]:open[1]])}
	}
	source = rawOrCapture.ReplaceAllStringFunc(source, func(s string) string {
		if !strings.HasSuffix(s, "capture") {
			return s
		}
		before := strings.TrimSuffix(s, "capture")
		if end, found := strings.CutSuffix(before, "end"); found {
			return end + "end" + captureTag
		}
		return before + captureTag
	})
	root, err := liquidConfig.Compile(source, parser.SourceLoc{})
	if err != nil {
		// The library counts lines from 0 when it begins nowhere.
		return nil, &TemplateError{Field: field, Line: err.LineNumber() + 1, Sentence: plainLiquid("The template cannot be read", err)}
	}
	watch(root)
	return root, nil
}

// lineAt is the line of a text, from 1, that the byte at offset stands in.
func lineAt(source string, offset int) int { return 1 + strings.Count(source[:offset], "\n") }

// tag is what stands between one pair of braces of a text, such as "user.name |
// upcase" and "if user.vip". Quoted words are emptied: a name in them is only a word.
type tag struct {
	text string
	line int // from 1
}

var (
	quotedPattern = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	filterPattern = regexp.MustCompile(`\|\s*([A-Za-z_][\w\-]*\??)`)
)

// tagsOf returns the tags of a text, without what raw and comment hold.
func tagsOf(source string) []tag {
	var tags []tag
	end := "" // of raw or comment
	for _, token := range parser.Scan(source, parser.SourceLoc{}, nil) {
		switch {
		case end != "":
			if token.Type == parser.TagTokenType && token.Name == end {
				end = ""
			}
		case token.Type == parser.TagTokenType && (token.Name == "raw" || token.Name == "comment"):
			end = "end" + token.Name
		case token.Type == parser.TagTokenType || token.Type == parser.ObjTokenType:
			tags = append(tags, tag{strings.TrimSpace(token.Name + " " + quotedPattern.ReplaceAllString(token.Args, `""`)), token.SourceLoc.LineNo + 1})
		}
	}
	return tags
}

// checkFilters refuses filters that do not exist, and in HTML the one that can
// make markup of an escaped value.
func checkFilters(tags []tag, inHTML bool) (line int, sentence string) {
	for _, t := range tags {
		for _, m := range filterPattern.FindAllStringSubmatch(t.text, -1) {
			switch name := m[1]; {
			case !liquidFilters[name]:
				return t.line, fmt.Sprintf("There is no filter %q: check the spelling, or leave it out.", name)
			case inHTML && name == "url_decode":
				return t.line, "The filter url_decode cannot be used in HTML: what somebody wrote could become part of the page. Leave it out, or hand over a decoded value."
			}
		}
	}
	return 0, ""
}

// checkRanges refuses ranges that are too long. Where only the loop's own limit
// bounds a range, it must stand in a loop: a filter makes a list of all of it.
func checkRanges(source string) (line int, sentence string) {
	for _, at := range liquidTag.FindAllStringIndex(source, -1) {
		tag := source[at[0]:at[1]]
		for _, m := range rangePattern.FindAllStringSubmatch(tag, -1) {
			from, fromErr := strconv.ParseInt(m[1], 10, 32)
			to, toErr := strconv.ParseInt(m[2], 10, 32)
			switch {
			case fromErr == nil && toErr == nil && to-from <= maxRange && from-to <= maxRange:
			case isNumber(m[1]) && isNumber(m[2]):
				return lineAt(source, at[0]), fmt.Sprintf("It counts through %s, which is too long: the limit is %d steps.", m[0], maxRange)
			case !loopPattern.MatchString(tag):
				return lineAt(source, at[0]), fmt.Sprintf("%s is only possible in a loop such as {%% for i in %s %%}.", m[0], m[0])
			}
		}
	}
	return 0, ""
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "-0123456789") == ""
}

// watch makes every turn of every loop look at the clock, and every tag tell
// where it stands: an error would otherwise name the loop around it.
func watch(n render.Node) {
	switch n := n.(type) {
	case *render.SeqNode:
		for _, child := range n.Children {
			watch(child)
		}
	case *render.ObjectNode:
		locate(&n.Token)
	case *render.TagNode:
		locate(&n.Token)
	case *render.BlockNode:
		locate(&n.Token)
		for _, child := range n.Body {
			watch(child)
		}
		for _, clause := range n.Clauses {
			watch(clause)
		}
		if n.Name == "for" || n.Name == "tablerow" {
			n.Body = append([]render.Node{tickNode}, n.Body...)
		}
	}
}

// locate gives a tag itself as the name of its file, which the library puts into
// its errors and then leaves as they are.
func locate(t *parser.Token) {
	t.SourceLoc = parser.SourceLoc{Pathname: t.Source, LineNo: t.SourceLoc.LineNo + 1}
}

// renderLiquid renders a parsed part within its budget.
func renderLiquid(root render.Node, vars map[string]any, b *budget) (text string, err error) {
	defer func() {
		// The library panics when it cannot write, and at some nonsense.
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
		if b.broken != nil {
			err = b.broken
		}
	}()
	bindings := make(map[string]any, len(vars)+1)
	maps.Copy(bindings, vars)
	bindings[budgetKey] = b
	out := &limitedBuffer{budget: b}
	if err := render.Render(root, out, bindings, liquidConfig); err != nil {
		var filter expressions.FilterError
		if errors.As(err.Cause(), &filter) && errors.Is(filter.Err, errTooLong) {
			return "", errTooLong
		}
		return "", err
	}
	return out.String(), nil
}

func limitedAssign(source string) (func(io.Writer, render.Context) error, error) {
	stmt, err := expressions.ParseStatement(expressions.AssignStatementSelector, source)
	if err != nil {
		return nil, err
	}
	assignment := stmt.Assignment
	return func(_ io.Writer, ctx render.Context) error {
		value, err := ctx.Evaluate(assignment.ValueFn)
		if err != nil {
			return err
		}
		b := budgetOf(ctx)
		if err := errors.Join(b.tick(), b.keep(assignment.Variable, value)); err != nil {
			return err
		}
		ctx.Set(assignment.Variable, value)
		return nil
	}, nil
}

func limitedCapture(node render.BlockNode) (func(io.Writer, render.Context) error, error) {
	name := strings.Trim(strings.TrimSpace(node.Args), `"'`)
	return func(_ io.Writer, ctx render.Context) error {
		out := &limitedBuffer{budget: budgetOf(ctx)}
		if err := ctx.RenderChildren(out); err != nil {
			return err
		}
		if err := out.budget.keep(name, out.String()); err != nil {
			return err
		}
		ctx.Set(name, out.String())
		return nil
	}, nil
}

// limitedFilters adds filters whose result may not be longer than a message.
type limitedFilters struct {
	cfg   *render.Config
	names map[string]bool
}

// AddFilter implements [filters.FilterDictionary].
func (l limitedFilters) AddFilter(name string, fn any) {
	if date, ok := fn.(func(time.Time, func(string) string) (string, error)); ok {
		fn = limitedDate(date)
	}
	l.names[name] = true
	call := reflect.ValueOf(fn)
	kind := call.Type()
	in := make([]reflect.Type, kind.NumIn())
	for i := range in {
		in[i] = kind.In(i)
	}
	errorType := reflect.TypeFor[error]()
	limited := reflect.FuncOf(in, []reflect.Type{kind.Out(0), errorType}, kind.IsVariadic())
	l.cfg.AddFilter(name, reflect.MakeFunc(limited, func(args []reflect.Value) []reflect.Value {
		results := call.Call(args)
		if len(results) == 1 {
			results = append(results, reflect.Zero(errorType))
		}
		if results[1].IsNil() && sizeOf(results[0].Interface()) > maxRendered {
			results[1] = reflect.ValueOf(&errTooLong).Elem()
		}
		return results
	}).Interface())
}

var longNumber = regexp.MustCompile(`\d{4}`)

// limitedDate refuses formats that ask for a number of so many digits that it
// fills the memory.
func limitedDate(date func(time.Time, func(string) string) (string, error)) func(time.Time, func(string) string) (string, error) {
	return func(t time.Time, format func(string) string) (string, error) {
		if f := format(""); longNumber.MatchString(f) || len(f) > 1000 {
			return "", fmt.Errorf("the date format %.40q is not possible", f)
		}
		return date(t, format)
	}
}

// addOwnFilters replaces those filters whose result must be measured before it
// is made, or whose limits are too narrow.
func addOwnFilters(fd filters.FilterDictionary) {
	fd.AddFilter("replace", func(s, old, by string) (string, error) {
		if len(by) > len(old) && len(s)+strings.Count(s, old)*(len(by)-len(old)) > maxRendered {
			return "", errTooLong
		}
		return strings.ReplaceAll(s, old, by), nil
	})
	fd.AddFilter("join", func(list []any, separator func(string) string) (string, error) {
		var b strings.Builder
		with, first := separator(" "), true
		for _, v := range list {
			if v == nil {
				continue
			}
			if !first {
				b.WriteString(with)
			}
			first = false
			fmt.Fprint(&b, v)
			if b.Len() > maxRendered {
				return "", errTooLong
			}
		}
		return b.String(), nil
	})
	// The library's own refuses lengths over 1,000.
	fd.AddFilter("truncate", func(s string, length func(int) int, ellipsis func(string) string) string {
		n, end := max(0, length(50)), ellipsis("...")
		if n >= utf8.RuneCountInString(s) {
			return s
		}
		keep := max(0, n-utf8.RuneCountInString(end))
		return string([]rune(s)[:keep]) + end
	})
	fd.AddFilter("truncatewords", func(s string, length func(int) int, ellipsis func(string) string) string {
		n, end := max(1, length(15)), ellipsis("...")
		words, inWord := 0, false
		for i, r := range s {
			space := unicode.IsSpace(r)
			if space && inWord {
				if words++; words == n && strings.TrimSpace(s[i:]) != "" {
					return s[:i] + end
				}
			}
			inWord = !space
		}
		return s
	})
}

// sizeOf is about how many bytes a value holds.
func sizeOf(value any) int {
	switch v := value.(type) {
	case nil:
		return 0
	case string:
		return len(v)
	case []byte:
		return len(v)
	case []string:
		n := 0
		for _, s := range v {
			n += len(s) + 16
		}
		return n
	case []any:
		n := 0
		for _, item := range v {
			n += sizeOf(item) + 16
		}
		return n
	case map[string]any:
		n := 0
		for k, item := range v {
			n += len(k) + sizeOf(item) + 16
		}
		return n
	default:
		return 16
	}
}

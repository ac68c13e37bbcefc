package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

//go:embed known.txt
var knownText string

// migrateProgram runs all migrations on the data folder of PocketBase's tests.
//
//go:embed migrate.txt
var migrateProgram string

const (
	pocketbase = "github.com/pocketbase/pocketbase"
	groundwork = "github.com/groundworkhq/groundwork"

	// sometimes begins the reason of a test that fails in some surroundings only.
	sometimes = "sometimes: "
)

func main() {
	dir := flag.String("dir", ".cache/compat", "the folder to work in; it is made anew")
	run := flag.String("run", "", "run only the tests that match, and do not judge known.txt")
	verbose := flag.Bool("v", false, "print what failing tests said")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./apis", "./core", "./forms", "./mails"}
	}
	if err := compat(*dir, *run, packages, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func compat(dir, run string, packages []string, verbose bool) error {
	known, err := parseKnown(knownText)
	if err != nil {
		return err
	}
	if err := prepare(dir); err != nil {
		return err
	}
	result, err := test(dir, run, packages)
	if err != nil {
		return err
	}

	unexpected, needed := 0, map[string]bool{}
	for _, name := range result.failures() {
		if reason, ok := known[name]; ok {
			needed[name] = true
			fmt.Printf("known difference: %s\n    %s\n", name, reason)
			if !verbose {
				continue
			}
		} else {
			unexpected++
			fmt.Printf("FAILED: %s\n", name)
		}
		for _, line := range result.output[name] {
			fmt.Print("    ", line)
		}
	}
	fmt.Printf("%d passed, %d failed as known, %d failed\n", result.passed(), len(needed), unexpected)
	if unexpected > 0 {
		return fmt.Errorf("%d of PocketBase's tests fail on the extended app and are not in compat/known.txt", unexpected)
	}
	if run == "" && len(flag.Args()) == 0 {
		for name := range known {
			if !needed[name] && !strings.HasPrefix(known[name], sometimes) {
				return fmt.Errorf("compat/known.txt has %q, which passes: take the line out", name)
			}
		}
	}
	return nil
}

// parseKnown reads lines of a test's name, a tab and the reason.
func parseKnown(text string) (map[string]string, error) {
	known := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, ok := strings.Cut(line, "\t")
		if !ok || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("line %d of known.txt has no reason: write the test's name, a tab and the reason", i+1)
		}
		known[name] = strings.TrimSpace(reason)
	}
	return known, nil
}

// prepare makes the copy of PocketBase whose tests run with Groundwork.
func prepare(dir string) error {
	source, err := output(".", "go", "list", "-m", "-f", "{{.Dir}}", pocketbase)
	if err != nil {
		return err
	}
	ours, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := copyTree(dir, strings.TrimSpace(source)); err != nil {
		return fmt.Errorf("copy PocketBase: %w", err)
	}
	if err := addGroundwork(filepath.Join(dir, "tests", "app.go")); err != nil {
		return err
	}
	for _, args := range [][]string{
		// Both ways: the copy uses this tree, and this tree the copy.
		{"go", "mod", "edit", "-require", groundwork + "@v0.0.0", "-replace", groundwork + "=" + ours},
		{"go", "mod", "tidy"},
	} {
		if _, err := output(dir, args[0], args[1:]...); err != nil {
			return err
		}
	}
	// The migrations run once, into the folder that each test's app copies.
	program := filepath.Join(dir, "compat_migrate")
	if err := os.MkdirAll(program, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(program, "main.go"), []byte(migrateProgram), 0o600); err != nil {
		return err
	}
	_, err = output(dir, "go", "run", "./compat_migrate")
	return err
}

// The events of our own records do not count: the tests say how many events a
// request of PocketBase's causes, and a sign-in makes a session besides.
var (
	modelEvent  = regexp.MustCompile(`(func\(e \*core\.Model(?:Error)?Event\) error \{\n)(\t+)(t\.registerEventCall\("\w+"\))`)
	recordEvent = regexp.MustCompile(`(func\(e \*core\.Record(?:Error|Enrich)?Event\) error \{\n)(\t+)(t\.registerEventCall\("\w+"\))`)
)

const registration = `	if err := groundwork.Register(t, groundwork.Config{Key: strings.Repeat("k", 32), LogOutput: io.Discard, Console: io.Discard}); err != nil {
		return nil, err
	}
	// Once more, for the hooks that were registered just now.
	if err := t.Bootstrap(); err != nil {
		return nil, err
	}
	t.Settings().Logs.MaxDays = 0
	// Some tests stop the clock, and a database's first connection starts a timer.
	for _, db := range []dbx.Builder{t.ConcurrentDB(), t.NonconcurrentDB(), t.AuxConcurrentDB(), t.AuxNonconcurrentDB()} {
		if _, err := db.NewQuery("SELECT 1").Execute(); err != nil {
			return nil, err
		}
	}
	t.ResetEventCalls()

	return t, nil
}

// countsAsOurs tells a record of Groundwork's own collections.
func countsAsOurs(model core.Model) bool {
	if proxy, ok := model.(core.RecordProxy); ok {
		model = proxy.ProxyRecord()
	}
	record, ok := model.(*core.Record)
	return ok && record != nil && strings.HasPrefix(record.Collection().Id, "gw_")
}
`

func addGroundwork(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	code := string(raw)
	change := func(old, changed string) {
		if err == nil && strings.Count(code, old) != 1 {
			err = fmt.Errorf("PocketBase's tests/app.go has changed: %q is not there once", old)
		}
		code = strings.Replace(code, old, changed, 1)
	}
	change("\treturn t, nil\n}\n", registration)
	change("\t\"runtime\"\n", "\t\"runtime\"\n\t\"strings\"\n\n\t\"github.com/pocketbase/dbx\"\n")
	change("\t_ \"github.com/pocketbase/pocketbase/migrations\"\n", "\t_ \"github.com/pocketbase/pocketbase/migrations\"\n\n\tgroundwork \""+groundwork+"/hooks\"\n")
	if err != nil {
		return err
	}
	code = modelEvent.ReplaceAllString(code, "${1}${2}if !countsAsOurs(e.Model) {\n${2}\t${3}\n${2}}")
	code = recordEvent.ReplaceAllString(code, "${1}${2}if !countsAsOurs(e.Record) {\n${2}\t${3}\n${2}}")
	return os.WriteFile(file, []byte(code), 0o600)
}

// result is what go test said of each test, by "package test".
type result struct {
	action map[string]string
	output map[string][]string
}

func test(dir, run string, packages []string) (*result, error) {
	args := []string{"test", "-json", "-timeout", "40m"}
	if run != "" {
		args = append(args, "-run", run)
	}
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Dir, cmd.Stderr, cmd.Env = dir, os.Stderr, environment()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &result{action: map[string]string{}, output: map[string][]string{}}
	broken := []string{}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event struct{ Action, Package, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			broken = append(broken, lines.Text())
			continue
		}
		name := strings.TrimPrefix(event.Package, pocketbase+"/") + " " + event.Test
		switch event.Action {
		case "output", "build-output":
			r.output[name] = append(r.output[name], event.Output)
		case "run", "pass", "fail", "skip", "build-fail":
			r.action[name] = event.Action
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	waitErr := cmd.Wait()
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return nil, waitErr
	}
	if r.passed() == 0 {
		return nil, fmt.Errorf("no test passed: %w\n%s%s", waitErr, strings.Join(broken, "\n"), strings.Join(r.output[" "], ""))
	}
	// A panic ends a package with tests still running.
	for name, action := range r.action {
		if pkg, _, _ := strings.Cut(name, " "); action == "run" || action == "fail" && name == pkg+" " && !slices.ContainsFunc(r.failures(), func(f string) bool { return strings.HasPrefix(f, name) }) {
			return nil, fmt.Errorf("package %s ended early, at %s:\n%s%s", pkg, name, strings.Join(r.output[name], ""), strings.Join(r.output[pkg+" "], ""))
		}
	}
	return r, nil
}

// failures are the tests that failed by themselves, not because of a subtest.
func (r *result) failures() []string {
	var names []string
	for name, action := range r.action {
		if action != "fail" || strings.HasSuffix(name, " ") {
			continue
		}
		inside := false
		for other, a := range r.action {
			if a == "fail" && strings.HasPrefix(other, name+"/") {
				inside = true
				break
			}
		}
		if !inside {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (r *result) passed() int {
	n := 0
	for name, action := range r.action {
		if action == "pass" && !strings.HasSuffix(name, " ") {
			n++
		}
	}
	return n
}

func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, &out, &errs, environment()
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// environment has the Go that runs this: PocketBase's go.mod names no toolchain,
// and another one would be fetched for it.
func environment() []string {
	version, _, _ := strings.Cut(runtime.Version(), " ")
	return append(os.Environ(), "GOTOOLCHAIN="+version)
}

// copyTree copies a module: its files in the module cache cannot be written to.
// The dashboard is left out but for what is embedded.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600)
	})
}

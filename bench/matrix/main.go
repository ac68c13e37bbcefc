// Command matrix starts the real app in a folder of its own and asks every
// collection and every route of ours as a guest, another person, the owner, a
// superuser and with a revoked token. It prints what each was answered as a table,
// and ends with status 1 when an answer is not the one in table.go, or when a
// collection or a route has no row there.
//
//	go run ./bench/matrix
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pocketbase/pocketbase/core"
)

func main() {
	wrong, err := run(os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(wrong) > 0 {
		fmt.Fprintln(os.Stderr, strings.Join(wrong, "\n"))
		os.Exit(1)
	}
}

// run prints the table and returns what is not as expected, in sentences.
func run(out io.Writer) (wrong []string, err error) {
	in, err := start()
	if err != nil {
		return nil, err
	}
	defer in.close()
	m := &matrix{installation: in, out: out}
	m.line("", who)
	if err := m.collections(); err != nil {
		return nil, err
	}
	if err := m.ownRoutes(); err != nil {
		return nil, err
	}
	return m.wrong, nil
}

type matrix struct {
	*installation
	out   io.Writer
	wrong []string
}

func (m *matrix) line(name string, cells []string) {
	fmt.Fprintf(m.out, "%-72s", name)
	for _, cell := range cells {
		fmt.Fprintf(m.out, " %-10s", cell)
	}
	fmt.Fprintln(m.out)
}

func (m *matrix) row(name string, got []string, want answers) {
	cells := slices.Clone(got)
	for i := range got {
		if got[i] != want[i] {
			cells[i] += "!"
			m.wrong = append(m.wrong, fmt.Sprintf("%s as %s: %s, and %s was expected", name, who[i], got[i], want[i]))
		}
	}
	m.line(name, cells)
}

// collections asks the records API of every collection that there is.
func (m *matrix) collections() error {
	expected := table()
	all, err := m.app.FindAllCollections()
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b *core.Collection) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range all {
		id := c.Id
		if _, ok := expected[id]; !ok {
			id = c.Name // PocketBase's own have random ids
		}
		rows, ok := expected[id]
		if !ok {
			m.wrong = append(m.wrong, fmt.Sprintf("the collection %s (%s) has no row in bench/matrix/table.go", c.Name, c.Id))
			continue
		}
		path := "/api/collections/" + c.Name + "/records"
		for _, action := range []struct {
			name, method string
			one          bool
			body         func(owner *core.Record) map[string]any
			want         answers
		}{
			{"list", http.MethodGet, false, nil, rows.list},
			{"view", http.MethodGet, true, nil, rows.view},
			{"create", http.MethodPost, false, func(owner *core.Record) map[string]any { return rows.body(m.installation, owner) }, rows.create},
			{"update", http.MethodPatch, true, func(*core.Record) map[string]any { return rows.change }, rows.update},
			{"delete", http.MethodDelete, true, nil, rows.delete},
		} {
			var got []string
			for _, as := range who {
				answer, err := m.ask(c, rows, as, action.name, action.method, path, action.one, action.body)
				if err != nil {
					return fmt.Errorf("%s %s as %s: %w", action.name, c.Name, as, err)
				}
				got = append(got, answer)
			}
			m.row(c.Name+" "+action.name, got, action.want)
		}
	}
	return nil
}

// ask makes one request with people and a record of its own, so that the rows do
// not disturb each other.
func (m *matrix) ask(c *core.Collection, rows collection, as, action, method, path string, one bool, body func(*core.Record) map[string]any) (string, error) {
	owner, token, err := m.owner(as)
	if err != nil {
		return "", err
	}
	var send any
	if action != "create" {
		seed, err := rows.seed(m.installation, owner)
		if err != nil {
			return "", err
		}
		defer func() { _ = m.drop(seed) }()
		if one {
			path += "/" + seed.Id
		} else {
			path += "?perPage=500&skipTotal=1&filter=" + "id%3D%22" + seed.Id + "%22"
		}
	}
	if body != nil {
		send = body(owner)
	}
	status, answer := m.send(method, path, send, token)
	text := strconv.Itoa(status)
	if action == "list" && status == http.StatusOK {
		var page struct{ Items []any }
		if err := json.Unmarshal(answer, &page); err != nil {
			return "", err
		}
		text += map[bool]string{true: " +", false: " -"}[len(page.Items) > 0]
	}
	if action == "create" && status == http.StatusOK {
		var made struct{ ID string }
		if err := json.Unmarshal(answer, &made); err != nil {
			return "", err
		}
		record, err := m.app.FindRecordById(c, made.ID)
		if err != nil {
			return "", err
		}
		return text, m.drop(record)
	}
	return text, nil
}

// owner makes the owner of one request, and says with which token it is made.
func (m *matrix) owner(as string) (*core.Record, string, error) {
	owner, err := m.account("users")
	if err != nil || as == "guest" {
		return owner, "", err
	}
	if as == "owner" {
		token, err := m.signIn(owner)
		return owner, token, err
	}
	return owner, m.tokens[as], nil
}

// ownRoutes asks every route of ours that the router knows.
func (m *matrix) ownRoutes() error {
	expected := routes()
	for _, pattern := range m.routes {
		if len(expected[pattern]) == 0 {
			m.wrong = append(m.wrong, fmt.Sprintf("the route %s has no row in bench/matrix/table.go", pattern))
			continue
		}
		method, _, _ := strings.Cut(pattern, " ")
		for _, r := range expected[pattern] {
			var got []string
			for _, as := range who {
				owner, token, err := m.owner(as)
				if err != nil {
					return err
				}
				if as == "other" || as == "superuser" {
					// Their own: some routes end the session or the account.
					one := map[string]string{"other": "users", "superuser": core.CollectionNameSuperusers}[as]
					asker, err := m.account(one)
					if err != nil {
						return err
					}
					if token, err = m.signIn(asker); err != nil {
						return err
					}
				}
				var body any
				if r.body != nil {
					body = r.body
				}
				path := strings.NewReplacer("{id}", owner.Id, "{superuser}", m.superuser.Id).Replace(r.path)
				status, _ := m.send(method, path, body, token)
				got = append(got, strconv.Itoa(status))
			}
			name := method + " " + r.path
			if r.why != "" {
				name += " (" + r.why + ")"
			}
			m.row(name, got, r.expect)
		}
	}
	for pattern := range expected {
		if !slices.Contains(m.routes, pattern) {
			m.wrong = append(m.wrong, fmt.Sprintf("the route %s of bench/matrix/table.go is not there any more", pattern))
		}
	}
	return nil
}

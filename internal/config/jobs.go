package config

import (
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// jobsDatabase reads JOBS_DATABASE_URL, and says nothing of what is in it.
func (r *reader) jobsDatabase() string {
	address := strings.TrimSpace(r.get("JOBS_DATABASE_URL"))
	if address == "" {
		return ""
	}
	u, err := url.Parse(address)
	if err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		if u.Hostname() == "" && u.Query().Get("host") == "" {
			r.problem("JOBS_DATABASE_URL names no host: write postgres://USER:PASSWORD@HOST:5432/DATABASE.")
			return ""
		}
		if _, err = pgxpool.ParseConfig(address); err == nil {
			return address
		}
	}
	r.problem("JOBS_DATABASE_URL cannot be read: write postgres://USER:PASSWORD@HOST:5432/DATABASE. Percent-encode special characters of the password.")
	return ""
}

package config

import (
	"regexp"
	"strings"
)

// serviceLink matches the variables that Kubernetes sets in every container for
// each service of the namespace, and older container engines for each link: a
// service called "groundwork" or "smtp" makes names that look like ours.
var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?$`)

// isServiceLink says whether a variable was set by the machinery around the
// container and not by a person. The address of a service stands where we have a
// port: SMTP_PORT=tcp://10.0.0.3:25.
func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) ||
		strings.HasSuffix(name, "_PORT") && (strings.HasPrefix(value, "tcp://") || strings.HasPrefix(value, "udp://") || strings.HasPrefix(value, "sctp://"))
}

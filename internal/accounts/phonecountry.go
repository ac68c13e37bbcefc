package accounts

import (
	"slices"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// PhoneCountry returns the country code of a number in E.164, such as DE; 001 for
// those that belong to no country (satellites, international services), and empty
// for one that cannot be read.
func PhoneCountry(phone string) string {
	n, err := phonenumbers.Parse(phone, "")
	if err != nil {
		return ""
	}
	// Several countries share +1, +7, +44 and others: the digits that follow tell
	// them apart.
	if region := phonenumbers.GetRegionCodeForNumber(n); region != "" && region != "ZZ" {
		return region
	}
	return phonenumbers.GetRegionCodeForCountryCode(int(n.GetCountryCode()))
}

// phoneCosts says whether a number earns its owner money for each message: nobody
// signs in with one.
func phoneCosts(phone string) bool {
	n, err := phonenumbers.Parse(phone, "")
	if err != nil {
		return true
	}
	switch phonenumbers.GetNumberType(n) {
	case phonenumbers.PREMIUM_RATE, phonenumbers.SHARED_COST:
		return true
	default:
		return false
	}
}

// MayText says whether codes are sent to a number. countries is the list that is
// in force; nil means everywhere, and an empty one nowhere.
func MayText(phone string, countries []string) bool {
	if countries == nil {
		return true
	}
	return slices.Contains(countries, PhoneCountry(phone)) && !phoneCosts(phone)
}

// isCountry says whether a code of two letters is that of a country with phones.
func isCountry(code string) bool {
	return phonenumbers.GetSupportedRegions()[strings.ToUpper(code)]
}

package hooks

// AllowPromotionalSMS lets promotional SMS leave in production, to show what holds
// it back besides.
func AllowPromotionalSMS(c *Config) { c.promotionalSMS = true }

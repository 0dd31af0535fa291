package alert

import "time"

// firstMinutes is how old a container is when a new port of it is worth a message: what opens
// before is its start.
const firstMinutes = "300"

// standardRules are the rules where the settings have none. They are silent while containers
// are deployed, restarted, scaled or crash. No rule names receivers: all receive them.
var standardRules = []fileRule{
	{
		Name: "widened", Severity: "critical",
		When: `drift == "wider" || drift == "" && type in ["opened", "changed"] && outside && widened()`,
	},
	{
		Name: "new-port", Severity: "warning",
		When: `type == "opened" && exposure in ["published", "host"] && !transient && container_age > ` + firstMinutes + ` && !seen_before()`,
	},
	{
		Name: "gone", Severity: "warning", For: 30 * time.Second,
		When: `type == "closed" && exposure == "published" && !transient && source != "engine" && running`,
	},
	{Name: "blind", Severity: "warning", When: `type == "gap"`},
}

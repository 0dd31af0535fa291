package notify

import (
	"net/url"
	"strconv"

	"portwatcher/internal/model"
)

// Identity is what a condition is about. It is the same from its beginning to its end, and after
// restarts of containers and of portwatcher: it has no pid, container id or time.
type Identity struct {
	// Rule is the name of the rule.
	Rule string
	// Target is [model.ContainerRef.Target]; empty for what belongs to no container.
	Target string
	// Protocol, Port and Exposure are zero where the condition is not about a port.
	Protocol model.Protocol
	Port     uint16
	Exposure model.Exposure
}

// Key returns the text of an identity, for Alert.Key:
// "exposure=published&port=80&protocol=tcp&rule=new&target=shop%2Fweb".
func (i Identity) Key() string {
	values := url.Values{"rule": {i.Rule}}
	if i.Target != "" {
		values.Set("target", i.Target)
	}
	if i.Protocol != 0 {
		values.Set("protocol", i.Protocol.String())
	}
	if i.Port != 0 {
		values.Set("port", strconv.Itoa(int(i.Port)))
	}
	if i.Exposure != "" {
		values.Set("exposure", string(i.Exposure))
	}
	return values.Encode()
}

// identityLabels returns the parts of a key by name. A key of another form is one label, key.
func identityLabels(key string) map[string]string {
	values, err := url.ParseQuery(key)
	if err != nil || values.Get("rule") == "" {
		return map[string]string{"key": key}
	}
	labels := map[string]string{}
	for name, list := range values {
		labels[name] = list[0]
	}
	return labels
}

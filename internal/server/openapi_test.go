package server

import (
	"regexp"
	"slices"
	"testing"
)

// TestEveryRouteIsDescribed compares addresses; package conformance compares
// the rest.
func TestEveryRouteIsDescribed(t *testing.T) {
	s := start(t, nil)
	served := []string{"/metrics", "/healthz", "/readyz"}
	for _, route := range s.apiRoutes() {
		served = append(served, route.path)
	}
	var described []string
	for _, match := range regexp.MustCompile(`(?m)^  (/\S+):$`).FindAllSubmatch(openAPI, -1) {
		described = append(described, string(match[1]))
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("served: %v\ndescribed: %v", served, described)
	}
	response, body := s.get(t, PathOpenAPI)
	if response.Header.Get("Content-Type") != "application/yaml" || body != string(openAPI) {
		t.Errorf("%s: %d bytes", response.Header.Get("Content-Type"), len(body))
	}
}

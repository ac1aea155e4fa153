package aws

import (
	"bytes"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// operations of services that a signature is for, in small letters: AWS's Service Authorization Reference has them.
type operations struct {
	only   []string // are signed, and no others
	except []string // are not signed
	form   bool     // they are named in a form
}

// credentials are what answers with something by which one is known to AWS, or in its name to others: for longer than a guest
// may use a key, or from elsewhere.
var credentials = map[string]operations{
	"sts":                 {form: true, only: []string{"getcalleridentity", "getaccesskeyinfo", "decodeauthorizationmessage"}},
	"iam":                 {form: true, except: []string{"createaccesskey", "createservicespecificcredential", "resetservicespecificcredential"}},
	"redshift":            {form: true, except: []string{"getclustercredentials", "getclustercredentialswithiam"}},
	"redshift-serverless": {except: []string{"getcredentials"}},
	"ecr":                 {except: []string{"getauthorizationtoken"}},
	"ecr-public":          {except: []string{"getauthorizationtoken"}},
	"codeartifact":        {except: []string{"authorization-token"}},
	"codepipeline":        {except: []string{"getjobdetails", "getthirdpartyjobdetails", "pollforjobs"}},
	"cognito-identity":    {except: []string{"getcredentialsforidentity", "getopenidtokenfordeveloperidentity"}},
	"datazone":            {except: []string{"credentials", "withsecret"}},
	"deadline":            {except: []string{"fleet-roles", "queue-roles", "read-roles", "user-roles"}},
	"elasticmapreduce":    {except: []string{"getclustersessioncredentials"}},
	"emr-containers":      {except: []string{"credentials"}},
	"finspace-api":        {except: []string{"credentials/programmatic", "external-access-details"}},
	"gamelift":            {except: []string{"createbuild", "getcomputeaccess", "getinstanceaccess", "requestuploadcredentials"}},
	"lakeformation":       {except: []string{"assumedecoratedrolewithsaml", "gettemporarydatalocationcredentials", "gettemporarygluetablecredentials", "gettemporarygluepartitioncredentials"}},
	"lightsail":           {except: []string{"createbucketaccesskey"}},
	"s3":                  {except: []string{"accessgrantsinstance/dataaccess", "session"}},
	"ssm":                 {except: []string{"getaccesstoken"}},
	"awsssoportal":        {only: []string{}},
	"eks-auth":            {only: []string{}},
	"s3express":           {only: []string{}}, // whose sessions are keys
	"sso":                 {only: []string{}},
	"sso-oauth":           {only: []string{}},
	"signin":              {only: []string{}},
}

// refused tells by which rule a request is not to be signed because of what it asks a service for.
func refused(r *http.Request, service string) (rule string) {
	of, ok := credentials[service]
	if !ok {
		return ""
	}
	// Of JSON, the operation is the end of a header; of CBOR and REST, that of the path. A query of a URL may have one as well.
	// All that somebody could read as the operation counts.
	path := strings.ToLower(strings.Trim(r.URL.Path, "/"))
	var named []string
	for _, target := range r.Header["X-Amz-Target"] {
		named = append(named, target[strings.LastIndexByte(target, '.')+1:])
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return RuleForm
	}
	forms := []url.Values{query}
	if of.form {
		form, rule := readForm(r)
		if rule != "" {
			return rule
		}
		forms = append(forms, form)
	}
	for _, form := range forms {
		for name, values := range form {
			if strings.EqualFold(name, "Action") {
				named = append(named, values...)
			}
		}
	}
	if !of.form { // in REST, a parameter can make another operation of a path, as S3's GET /?session
		named = slices.AppendSeq(named, maps.Keys(query))
	}
	if of.form && (len(named) != 1 || path != "") {
		return RuleForm // servers read this differently
	}
	for i := range named {
		named[i] = strings.ToLower(named[i])
	}
	for _, operation := range of.except {
		if slices.Contains(named, operation) || strings.HasSuffix("/"+path, "/"+operation) {
			return RuleOperation
		}
	}
	others := func(operation string) bool { return !slices.Contains(of.only, operation) }
	if of.only != nil && (len(named) == 0 || slices.ContainsFunc(named, others)) {
		return RuleOperation
	}
	return ""
}

// readForm reads the body of a request, which is a form or empty, and puts it back.
func readForm(r *http.Request) (form url.Values, rule string) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, ""
	}
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(parameters["charset"])
	if err != nil || kind != "application/x-www-form-urlencoded" || len(r.Header["Content-Type"]) != 1 || charset != "" && charset != "utf-8" || len(r.Header["Content-Encoding"]) > 0 {
		return nil, RuleForm
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil || len(text) > maxForm {
		return nil, RuleSize
	}
	r.Body = &held{Reader: bytes.NewReader(text), was: r.Body}
	if form, err = url.ParseQuery(string(text)); err != nil {
		return nil, RuleForm
	}
	return form, ""
}

"""The page that the gateway serves at `/`: HTML, CSS and JavaScript as they are, no build step."""

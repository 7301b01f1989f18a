# Serve a model on Windows: set up what is missing, then `llama-runner run` with the same options.
#
#   powershell -ExecutionPolicy Bypass -File scripts\run_server.ps1 --demo
#   scripts\run_server.ps1 --gguf-path FILE --port 9000
#
# It does what run_server.sh and setup.sh do, in Windows PowerShell 5.1 and newer ones.

$ErrorActionPreference = 'Stop'
$repository = Split-Path -Parent $PSScriptRoot
$venv = Join-Path $repository '.venv'
$python = Join-Path $venv 'Scripts\python.exe'
$marker = Join-Path $venv '.ready-run'
$project = Join-Path $repository 'pyproject.toml'

function Stop-SetUp([string]$what, [string]$hint) {
    [Console]::Error.WriteLine("error: $what")
    [Console]::Error.WriteLine("hint: $hint")
    exit 5
}

# Return the first Python that is new enough. The Store's python.exe ends with an error where none is installed.
function Find-Python {
    foreach ($candidate in @($env:PYTHON, 'py', 'python', 'python3')) {
        if ($candidate -and (Get-Command $candidate -CommandType Application -ErrorAction SilentlyContinue)) {
            & $candidate -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' | Out-Null
            if ($LASTEXITCODE -eq 0) { return $candidate }
        }
    }
    Stop-SetUp 'no Python 3.10 or newer found' 'winget install Python.Python.3.12   (or set PYTHON)'
}

function Invoke-PipInstall {
    & $python -I -m pip install --quiet @args
    if ($LASTEXITCODE -ne 0) {
        $hint = 'check the network and pip''s index, proxy and certificate settings (pip config list)'
        Stop-SetUp 'pip could not install everything; see above' $hint
    }
}

$ready = (Test-Path -LiteralPath $marker) -and
    ((Get-Item -LiteralPath $marker).LastWriteTimeUtc -gt (Get-Item -LiteralPath $project).LastWriteTimeUtc)
if (-not $ready) {
    $usable = $false
    if (Test-Path -LiteralPath $python) {
        & $python -I -m pip --version | Out-Null
        $usable = $LASTEXITCODE -eq 0
    }
    if (-not $usable) {
        $base = Find-Python
        & $base -I -m venv --clear $venv
        if ($LASTEXITCODE -ne 0) { Stop-SetUp 'Python cannot make virtual environments here' 'its message is above' }
    }
    [Console]::Error.WriteLine('setting up .venv (run); this happens once')
    Invoke-PipInstall --upgrade 'pip>=25.1'
    Invoke-PipInstall --editable "${repository}[gateway]"
    Set-Content -LiteralPath $marker -Value ''
}

# PowerShell makes an array of words with commas, such as q4_k_m,q8_0.
$words = @($args | ForEach-Object { $_ -join ',' })
& $python -I -m llama_runner.run_server @words
exit $LASTEXITCODE

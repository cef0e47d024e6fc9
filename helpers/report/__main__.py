from helpers.report import main

main()
